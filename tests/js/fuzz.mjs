// Changes each byte of the packets of docs/vectors.json, cuts them at each byte, and appends a byte, and
// gives the results to a Protocol. Each is accepted, or breaks the protocol; nothing else is thrown.
// Prints { tried, accepted, problems }.
import { readFileSync } from "node:fs";
import { Encoder } from "../../trio_rpc/js/encoder.js";
import { RemoteProtocolError, Refused } from "../../trio_rpc/js/errors.js";
import { DEFAULT_LIMITS, Protocol, Window } from "../../trio_rpc/js/protocol.js";
import { unhex } from "./notation.mjs";

const VECTORS = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const packets = [
  ...VECTORS.values.map(({ hex }) => `940101a16d91${hex}`), // as the argument of a call
  ...VECTORS.messages.map(({ hex }) => hex),
  ...VECTORS.exchanges.flatMap(({ send }) => send),
].filter((packet) => packet.length < 800);
const encode = (fields) => new Encoder().encode(fields, DEFAULT_LIMITS);
/** Gives a packet to a protocol without a pause. */
const receive = (protocol, packet, on) => void [...protocol.receive(packet, on)];
const opening = new Uint8Array([...encode([10, 1, VECTORS.hello]), ...encode([11])]);

/** A session that has one call in flight, with the id 1, and ignores all events. */
function opened() {
  const protocol = new Protocol(DEFAULT_LIMITS, { readers: new Map(), writers: new Map() });
  const ignored = () => {};
  const on = new Proxy({ refer: () => (kind, number) => ({ kind, number }) }, { get: (target, name) => target[name] ?? ignored });
  protocol.hello(undefined, "");
  receive(protocol, opening.subarray(0, opening.length - 2), on);
  protocol.welcome();
  receive(protocol, opening.subarray(opening.length - 2), on);
  protocol.request({ window: new Window([9, 999]), awaitsStarted: true }, "m", [], {}, { stream: [9, 999] }, null);
  return [protocol, on];
}

let [tried, accepted] = [0, 0];
const problems = [];
function attempt(changed, what) {
  const [protocol, on] = opened();
  tried++;
  try {
    receive(protocol, changed, on);
    accepted++;
  } catch (error) {
    if (!(error instanceof RemoteProtocolError || error instanceof Refused)) problems.push(`${what}: ${error.stack}`);
  }
}

for (const packet of packets) {
  const bytes = unhex(packet);
  attempt(new Uint8Array([...bytes, 0]), `${packet} and a byte`);
  for (let at = 0; at < bytes.length; at++) {
    attempt(bytes.slice(0, at), `${packet} cut at ${at}`);
    for (const byte of [bytes[at] ^ 1, bytes[at] ^ 0x80, 0xc1, 0xdd, 0xff, 0xc9, bytes[at] + 1]) {
      const changed = bytes.slice();
      changed[at] = byte;
      attempt(changed, `${packet} ${at} ${byte}`);
    }
  }
}
console.log(JSON.stringify({ tried, accepted, problems: problems.slice(0, 5), polluted: {}.polluted ?? null }));
