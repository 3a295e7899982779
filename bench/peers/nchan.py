"""Nchan, a module of nginx in C: its memory store and its own EventSource subscriber, one process. Debian packs it."""

import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.peers.base import PeerMissing, Server, Stream
from bench.peers.http_publisher import HttpPublisher
from shared.events import Token, to_data

INSTALL: Final = "apt-get install --no-install-recommends libnginx-mod-nchan"
_MODULES: Final = (Path("/usr/lib/nginx/modules"), Path("/usr/share/nginx/modules"), Path("/usr/lib64/nginx/modules"))
_MODULE: Final = "ngx_nchan_module.so"

_CONFIGURATION: Final = """
load_module {module};
daemon off;
master_process off;  # one process, which dies with the bench
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 30000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    nchan_message_buffer_length 5000;  # what a reader lags behind, and what a replay needs
    nchan_message_timeout 10m;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location ~ ^/publish/(\\w+)$ {{ nchan_publisher; nchan_channel_id $1; }}
        location ~ ^/events/(\\w+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_eventsource_ping_interval 15;
        }}
    }}
}}
"""


class NchanStream(Stream):
    def __init__(self, path: str, publisher: HttpPublisher, name: str) -> None:
        super().__init__(path)
        self._publisher = publisher
        self._name = name

    async def write(self, text: str) -> None:
        await self._publisher.post(f"/publish/{self._name}", to_data(Token(text)))


class Nchan(Server):
    name = "Nchan"
    likely_crowd = 1500

    async def start(self) -> None:
        nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        module = next((folder / _MODULE for folder in _MODULES if (folder / _MODULE).exists()), None)
        if nginx is None or module is None:
            raise PeerMissing(f"Nchan is not here: {INSTALL}")
        folder = self.stage.dir / "nchan"
        folder.mkdir()
        self.port = _free_port()
        configuration = folder / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(module=module, folder=folder, port=self.port))
        self.web = await self.stage.start("nginx", nginx, "-p", str(folder), "-c", str(configuration), may_end=True)
        await self.web.logged("getrlimit")

    def path_of(self, name: str) -> str:
        return f"/events/{name}"

    @asynccontextmanager
    async def stream(self, name: str) -> AsyncIterator[Stream]:
        async with HttpPublisher(self.port) as publisher:
            yield NchanStream(self.path_of(name), publisher, name)

    def note(self) -> str:
        return "Nchan: its CPU has the taking of each event over HTTP in it; it has no log behind it and needs no Redis."


def _free_port() -> int:
    """One that was free a moment ago: nginx has to be told a number."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
