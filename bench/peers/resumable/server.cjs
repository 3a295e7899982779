// resumable-stream as its readme has it, on node:http: `node server.cjs source|web REDIS_SOCKET`; prints its port.
//
// The source makes the streams: POST /NAME creates one, and every later one adds its body to it, an SSE frame's text. The web
// process resumes them for readers: GET /NAME. Two processes, so that the readers' cost is apart from the writer's.
const http = require("node:http");
const { Readable } = require("node:stream");
const { createClient } = require("redis");
const { createResumableStreamContext } = require("resumable-stream/redis");

const [role, path] = process.argv.slice(2);
const HEADERS = { "Content-Type": "text/event-stream", "Cache-Control": "no-store" };

async function context() {
  const [publisher, subscriber] = [0, 1].map(() => createClient({ socket: { path } }));
  for (const client of [publisher, subscriber]) client.on("error", (error) => console.error(error));
  await Promise.all([publisher.connect(), subscriber.connect()]);
  return createResumableStreamContext({ publisher, subscriber });
}

function source(streams) {
  const controllers = new Map();
  return async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const name = request.url.slice(1);
    if (controllers.has(name)) {
      controllers.get(name).enqueue(Buffer.concat(pieces).toString());
    } else {
      const made = () => new ReadableStream({ start: (controller) => void controllers.set(name, controller) });
      await streams.createNewResumableStream(name, made);
    }
    response.writeHead(204).end();
  };
}

function web(streams) {
  return async (request, response) => {
    const stream = await streams.resumeExistingStream(request.url.slice(1));
    if (!stream) return response.writeHead(404).end();
    response.writeHead(200, HEADERS).flushHeaders();
    const readable = Readable.fromWeb(stream);
    readable.on("error", () => response.destroy());
    response.on("error", () => readable.destroy());
    response.on("close", () => readable.destroy());
    readable.pipe(response);
  };
}

context().then((streams) => {
  const server = http.createServer(role === "source" ? source(streams) : web(streams));
  server.listen({ port: 0, host: "127.0.0.1", backlog: 2048 }, () => console.log(server.address().port));
});
