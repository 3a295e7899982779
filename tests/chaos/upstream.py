"""The upstream as a process of its own, so that no fault and no busy loop of the run changes what it says: prints its port."""

import asyncio

import uvloop

from tests.support.openai_server import OpenAIServer


async def main() -> None:
    async with OpenAIServer() as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
