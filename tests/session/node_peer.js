// A peer that sends as fast as it can until the session ends, and then prints how it ended.
"use strict";
const [kind, place, hello, more, authority] = process.argv.slice(2);
const [first, next] = [Buffer.from(hello, "hex"), Buffer.from(more, "hex")];
const seen = { last: "", ended: false, errors: [] };
const printRecord = () => console.log(JSON.stringify(seen));

function framed(packet) {
  const size = Buffer.alloc(4);
  size.writeUInt32BE(packet.length);
  return Buffer.concat([size, packet]);
}

function overStream(socket) {
  let rest = Buffer.alloc(0);
  socket.on("data", (data) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE(0)) {
      const end = 4 + rest.readUInt32BE(0);
      seen.last = rest.subarray(4, end).toString("hex");
      rest = rest.subarray(end);
    }
  });
  socket.on("end", () => { seen.ended = rest.length === 0; });
  socket.on("error", (error) => seen.errors.push(error.code));
  socket.on("close", printRecord);
  const packets = framed(next);
  const send = () => {
    if (!socket.writable) return;
    if (socket.write(packets)) setImmediate(send);
    else socket.once("drain", send);
  };
  socket.write(framed(first));
  send();
}

function overWebSocket() {
  const socket = new WebSocket(place, "trio-rpc.v1");
  socket.binaryType = "arraybuffer";
  const send = () => {
    if (socket.readyState !== WebSocket.OPEN) return;
    for (let count = 0; count < 4 && socket.bufferedAmount < 1e6; count++) socket.send(next);
    setImmediate(send);
  };
  socket.onopen = () => { socket.send(first); send(); };
  socket.onmessage = (event) => { seen.last = Buffer.from(event.data).toString("hex"); };
  socket.onerror = (event) => seen.errors.push(String(event.message ?? event.error));
  socket.onclose = (event) => { seen.ended = event.wasClean; printRecord(); };
}

const port = Number(place.split(":").pop());
if (kind === "ws") overWebSocket();
else if (kind === "unix") overStream(require("node:net").connect(place));
else if (kind === "tcp") overStream(require("node:net").connect(port, "127.0.0.1"));
else {
  const ca = require("node:fs").readFileSync(authority);
  const socket = require("node:tls").connect({ host: "127.0.0.1", port, ca, servername: "localhost" });
  socket.on("secureConnect", () => overStream(socket));
}
