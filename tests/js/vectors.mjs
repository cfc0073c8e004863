// Runs the vectors of docs/vectors.json, and prints the problems as JSON: { tried, problems }.
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { Decoder } from "../../trio_rpc/js/decoder.js";
import { Encoder } from "../../trio_rpc/js/encoder.js";
import * as m from "../../trio_rpc/js/messages.js";
import { DEFAULT_LIMITS } from "../../trio_rpc/js/protocol.js";
import * as rpc from "../../trio_rpc/js/session.js";
import { hex, unhex, valueOf } from "./notation.mjs";

const VECTORS = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const problems = [];
let tried = 0;

const encode = (fields) => new Encoder().encode(fields, DEFAULT_LIMITS, () => null);

function decoderOf(data, limits = DEFAULT_LIMITS) {
  const decoder = new Decoder(limits);
  decoder.load(data);
  return decoder;
}

/** Decodes a packet to arrays, as they were sent. */
function decode(data) {
  const decoder = decoderOf(data);
  const found = [];
  while (!decoder.isDone) {
    decoder.begin();
    decoder.refer = (kind, number) => new rpc.Reference(kind, number);
    found.push(decoder.value(0));
  }
  return found;
}

function check(name, test) {
  tried++;
  try {
    const problem = test();
    if (problem) problems.push([name, problem]);
  } catch (error) {
    problems.push([name, String(error.stack)]);
  }
}

const same = (one, other) => isDeepStrictEqual(one, other) ? "" : `${JSON.stringify(one)} is not ${JSON.stringify(other)}`;

/** A Decimal is the same with a plus sign before it. */
const plain = (value) => (value instanceof rpc.Decimal ? new rpc.Decimal(value.text.replace(/^\+/, "")) : value);

for (const { name, value, hex: data, also = [] } of VECTORS.values) {
  check(`encode ${name}`, () => (hex(encode([valueOf(value)]).subarray(1)) === data ? "" : hex(encode([valueOf(value)]))));
  for (const other of [data, ...also]) {
    check(`decode ${name} ${other}`, () => same(plain(decode(unhex(`91${other}`))[0][0]), valueOf(value)));
  }
}
for (const { name, value, hex: data } of VECTORS["decoded only"]) {
  check(name, () => same(decode(unhex(`91${data}`))[0][0], valueOf(value)));
}
for (const { name, message, fields, hex: data, also = [] } of VECTORS.messages) {
  check(`encode ${name}`, () => (hex(encode(valueOf(fields))) === data ? "" : hex(encode(valueOf(fields)))));
  const read = (bytes) => {
    const refer = () => (kind, number) => new rpc.Reference(kind, number);
    const { size, unreadable, ...found } = m.parse(decoderOf(unhex(bytes)), refer);
    return { ...found, ...(found.type === m.REQUEST || found.type === m.NOTIFICATION ? { kwargs: found.kwargs ?? {} } : {}) };
  };
  for (const other of [data, ...also]) check(`decode ${message} ${name}`, () => same(read(other), read(data)));
  check(`type ${name}`, () => same(read(data).type, fields[0]));
}
for (const { name, fields, hex: data } of VECTORS.packets) {
  check(`encode ${name}`, () => same(fields.map((one) => hex(encode(valueOf(one)))).join(""), data));
  check(`decode ${name}`, () => same(decode(unhex(data)), fields.map(valueOf)));
}

// ── exchanges ──

const HELLO_TYPES = { maxCalls: "calls", maxNotifications: "notifications", maxMessage: "max_message", maxPacket: "max_packet", maxDepth: "max_depth", maxNodes: "max_nodes" };
const SERVED = Object.fromEntries(Object.entries(HELLO_TYPES).map(([field, key]) => [field, VECTORS.served[key]]));

const untilStopped = rpc.withCall((call) => new Promise((_, reject) => {
  call.signal.addEventListener("abort", () => reject(call.signal.reason));
}));

const services = {
  test: {
    echo: rpc.method((value) => value, { value: "any" }),
    add: rpc.method((a, b) => a + b, { a: "integer", b: "integer" }),
    fail: rpc.method((text) => {
      throw new rpc.RemoteError("builtins.ValueError", text, { args: [text] });
    }, { text: "string" }),
    apply: rpc.method((run, value) => run(value), { function: "function", value: "any" }),
    async total(items) {
      let sum = 0;
      for await (const item of items) sum += item;
      return sum;
    },
    async *count(most) {
      for (let number = 0; number < most; number++) yield number;
    },
    chat: rpc.duplex(async ({ readable, writable }) => {
      const writer = writable.getWriter();
      for await (const item of readable) await writer.write(item);
    }),
    begin: rpc.startable((call, value) => {
      call.started(value);
      return new Promise((_, reject) => call.signal.addEventListener("abort", () => reject(call.signal.reason)));
    }),
    wait: untilStopped,
    note: rpc.notification(() => {}),
    hold: rpc.notification(untilStopped),
  },
};

/** One end of a channel in memory. Closing it ends both directions. */
class Pipe {
  packets = [];
  waiting = [];
  isClosed = false;

  send(packet) {
    this.other.packets.push(packet);
    this.other.rouse();
  }

  async receive() {
    while (!this.packets.length && !this.isClosed) await new Promise((resolve) => this.waiting.push(resolve));
    return this.packets.shift() ?? null;
  }

  close() {
    for (const pipe of [this, this.other]) {
      pipe.isClosed = true;
      pipe.rouse();
    }
  }

  rouse() {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}

/** Waits until nothing happens any more: timers of 0 ms, and turns of the event loop, included. */
async function quiet() {
  for (const ms of [5, 0, 0]) await new Promise((resolve) => setTimeout(resolve, ms));
}

async function exchange({ name, state, send, replies, outcome }) {
  const [ours, theirs] = [new Pipe(), new Pipe()];
  [ours.other, theirs.other] = [theirs, ours];
  const session = rpc.openSession(ours, { services, limits: SERVED }).catch(() => {});
  let received = [];
  const listen = async () => {
    await quiet();
    for (const packet of theirs.packets.splice(0)) received.push(...decode(packet));
  };
  await listen();
  const [[type, , info]] = received;
  if (type !== 10) return "no Hello";
  for (const [key, value] of Object.entries(VECTORS.served)) if (info[key] !== value) return `${key} is ${info[key]}`;
  received = [];
  if (state === "open") {
    const both = [encode([10, 1, VECTORS.hello]), encode([11])];
    theirs.send(new Uint8Array([...both[0], ...both[1]]));
    await listen();
    if (!isDeepStrictEqual(received, [[11]])) return `no Welcome: ${JSON.stringify(received)}`;
    received = [];
  }
  for (const packet of send) {
    theirs.send(unhex(packet));
    await listen();
  }
  if (outcome === "goes on") {
    if (theirs.isClosed) return "it has ended";
    theirs.send(encode([13, 99]));
    await listen();
    if (!isDeepStrictEqual(received.pop(), [14, 99])) return "no Pong";
  } else {
    if (!theirs.isClosed) return "it has not ended";
    if (!replies.some((reply) => reply[0] === 12)) {
      const code = outcome === "refused" ? "refused" : "protocol_error";
      const goodbye = received.pop();
      if (goodbye?.[0] !== 12 || goodbye[1] !== code) return `no Goodbye: ${JSON.stringify(goodbye)}`;
    }
  }
  const problem = compare(received, replies, outcome);
  theirs.close();
  await session;
  return problem;
}

const isCredit = (fields) => fields[0] === 15 && fields.length === 2;

function fits(message, expected) {
  if (message[0] !== expected[0]) return false;
  if (message[0] === 12 || message[0] === 5) return message[1] === expected[1];
  if (message[0] === 1) return isDeepStrictEqual(message.toSpliced(2, 1), valueOf(expected).toSpliced(2, 1));
  if (message[0] !== 4) return isDeepStrictEqual(message, valueOf(expected));
  return message[1] === expected[1] &&
    Object.entries(expected[2]).every(([key, value]) => isDeepStrictEqual(message[2][key], value));
}

function compare(received, replies, outcome) {
  let left = received.filter((one) => !isCredit(one));
  let credit = received.filter(isCredit).reduce((sum, one) => sum + one[1], 0);
  for (const expected of replies) {
    if (isCredit(expected)) {
      credit -= expected[1];
      continue;
    }
    const index = left.findIndex((one) => fits(one, expected));
    if (index < 0) return `no ${JSON.stringify(expected)} in ${JSON.stringify(left)}`;
    left.splice(index, 1);
  }
  if (outcome !== "goes on") left = left.filter((one) => one[0] !== 5);
  if (left.length) return `not expected: ${JSON.stringify(left)}`;
  return credit && outcome === "goes on" ? `credit ${credit}` : "";
}

console.error = () => {}; // errors of notifications are reported there
for (const vector of VECTORS.exchanges) {
  tried++;
  try {
    const problem = await exchange(vector);
    if (problem) problems.push([vector.name, problem]);
  } catch (error) {
    problems.push([vector.name, String(error.stack)]);
  }
}
console.log(JSON.stringify({ tried, problems }, (_, value) => (typeof value === "bigint" ? `${value}n` : value)));
process.exit(0);
