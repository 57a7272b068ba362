// A proxy that counts round trips: how often a query is sent when every earlier one is answered.
import net from "node:net";

// Cuts a stream into PostgreSQL's messages: a type (but for the first), a length, a body.
function frames(typed, each) {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (;;) {
      const head = typed ? 1 : 0;
      if (rest.length < head + 4) return;
      const end = head + rest.readInt32BE(head);
      if (rest.length < end) return;
      const frame = rest.subarray(0, end);
      rest = rest.subarray(end);
      if (each(frame, typed) === "typed") typed = true;
    }
  };
}

const SSL_REQUEST = 80877103;

// Calls `run` with the URL of a proxy before the server of `url`; the round trips of the queries it makes.
export async function countRoundTrips(url, run) {
  let trips = 0;
  const proxy = net.createServer((client) => {
    const server = net.connect(Number(new URL(url).port || 5432), new URL(url).hostname);
    let queries = 0;
    let ready = -1; // The handshake ends with the first.
    const fromClient = frames(false, (frame, typed) => {
      if (!typed && frame.readInt32BE(4) === SSL_REQUEST) {
        client.write("N");
        return;
      }
      if (typed && frame[0] === "Q".charCodeAt(0)) {
        if (queries === ready) trips++;
        queries++;
      }
      server.write(frame);
      return "typed";
    });
    const fromServer = frames(true, (frame) => {
      if (frame[0] === "Z".charCodeAt(0)) ready++;
      client.write(frame);
    });
    client.on("data", fromClient).on("close", () => server.end()).on("error", () => server.destroy());
    server.on("data", fromServer).on("close", () => client.end()).on("error", () => client.destroy());
  });
  await new Promise((listening) => proxy.listen(0, "127.0.0.1", listening));
  const through = new URL(url);
  through.hostname = "127.0.0.1";
  through.port = proxy.address().port;
  await run(through.href);
  proxy.close();
  return trips;
}
