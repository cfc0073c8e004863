/** The messages of docs/protocol.md, section 4, and their form. */

import { DecodeError } from "./errors.js";
import { Reference } from "./values.js";

export const VERSION = 1;
export const REQUEST = 1;
export const NOTIFICATION = 2;
export const REPLY = 3;
export const REPLY_ERR = 4;
export const CANCEL = 5;
export const HELLO = 10;
export const WELCOME = 11;
export const GOODBYE = 12;
export const PING = 13;
export const PONG = 14;
export const CREDIT = 15;
export const PIECE = 16;
export const LAST_PIECE = 17;
export const ITEM = 20;
export const END_OF_ITEMS = 21;
export const STARTED = 23;

/** The least and the most elements of each message, with its type. */
const SIZES = {
  [REQUEST]: [4, 6], [NOTIFICATION]: [3, 5], [REPLY]: [3, 3], [REPLY_ERR]: [3, 3],
  [CANCEL]: [2, 3], [HELLO]: [3, 3], [WELCOME]: [1, 1], [GOODBYE]: [3, 3], [PING]: [2, 2],
  [PONG]: [2, 2], [CREDIT]: [2, 4], [PIECE]: [2, 2], [LAST_PIECE]: [2, 2], [ITEM]: [3, 3],
  [END_OF_ITEMS]: [2, 2], [STARTED]: [3, 3],
};

/** The messages that may come in pieces. */
export const IN_PIECES = new Set([
  REQUEST, NOTIFICATION, REPLY, REPLY_ERR, ITEM, END_OF_ITEMS, STARTED,
]);

/** The numbers of a Hello, and the least that makes sense. */
export const NUMBERS = {
  calls: ["maxCalls", 1],
  notifications: ["maxNotifications", 1],
  max_message: ["maxMessage", 16_384],
  max_packet: ["maxPacket", 16_384],
  max_depth: ["maxDepth", 8],
  max_nodes: ["maxNodes", 1024],
};

const asItIs = (kind, number) => new Reference(kind, number);

/**
 * Reads the next message of a packet.
 * @param {import("./decoder.js").Decoder} d
 * @param {(id: number) => (kind: number, number: number) => unknown} refer makes the values that
 *   stand for the references of a Request
 */
export function parse(d, refer) {
  d.begin();
  const from = d.at;
  const size = d.array(0);
  if (size === 0) throw new DecodeError("not a message");
  const type = d.int();
  const [least, most] = SIZES[type] ?? [];
  if (!(least <= size && size <= most)) {
    throw new DecodeError(`type ${type} with ${size} elements`);
  }
  const message = { type, ...READ[type](d, size, refer) };
  message.size = d.at - from;
  message.unreadable = d.unreadable;
  return message;
}

const withId = (d) => ({ id: d.int(1) });
const withNumber = (d) => ({ number: d.int() });
const withData = (d) => ({ data: d.bin() });

const READ = {
  [REQUEST](d, size, refer) {
    const id = d.int(1);
    return { id, ...readCall(d, size - 4, refer(id)) };
  },
  [NOTIFICATION]: (d, size) => readCall(d, size - 3, asItIs),
  [REPLY](d) {
    const id = d.int(1);
    d.refer = asItIs;
    return { id, result: d.value(1) };
  },
  [REPLY_ERR]: (d) => ({ id: d.int(1), error: d.named(1) }),
  [CANCEL](d, size) {
    const id = d.int(1);
    const reason = size > 2 ? d.value(1) : null;
    if (reason !== null && typeof reason !== "string") throw new DecodeError("not text");
    return { id, reason };
  },
  [HELLO](d) {
    const version = d.int();
    const info = d.named(1, (key) => {
      const isBad = Object.hasOwn(NUMBERS, key) && !d.isInt; // 16.0 is not an integer, but is equal to one
      const value = d.value(2);
      return isBad ? NaN : value;
    });
    return { version, info };
  },
  [WELCOME]: () => ({}),
  [GOODBYE]: (d) => ({ code: d.text(), message: d.text() }),
  [PING]: withNumber,
  [PONG]: withNumber,
  [CREDIT](d, size) {
    const count = d.int();
    const id = size > 2 ? d.int(1) : null;
    const bytes = size > 3 ? d.int() : 0;
    if (count + bytes === 0) throw new DecodeError("a Credit of nothing");
    return { count, id, bytes };
  },
  [PIECE](d) {
    const data = d.bin();
    if (data.length === 0) throw new DecodeError("a Piece of nothing");
    return { data };
  },
  [LAST_PIECE]: withData,
  [ITEM]: (d) => ({ id: d.int(1), value: d.value(1) }),
  [END_OF_ITEMS]: withId,
  [STARTED]: (d) => ({ id: d.int(1), value: d.value(1) }),
};

function readCall(d, more, refer) {
  const method = d.text();
  d.refer = refer;
  const args = [];
  for (let left = d.array(1); left > 0; left--) args.push(d.value(2));
  const kwargs = more > 0 ? d.named(1) : null;
  d.refer = null;
  const context = more > 1 ? d.named(1, (key) => readEntry(d, key)) : {};
  return { method, args, kwargs, context };
}

/** Reads one entry of a context (section 6), whose known entries have types. */
function readEntry(d, key) {
  switch (key) {
    case "parent": case "depth": case "callback": case "scope":
      return d.int();
    case "deadline": case "sent": {
      const seconds = d.isInt ? d.int() : d.value(2);
      if (!(typeof seconds === "number" && seconds >= 0 && seconds < Infinity)) {
        throw new DecodeError("not a time");
      }
      return seconds;
    }
    case "metadata":
      return d.named(2);
    case "stream":
      if (d.array(2) !== 2) throw new DecodeError("not two");
      return [d.int(1), d.int(1)];
    case "task_status": {
      const isWanted = d.value(2);
      if (typeof isWanted !== "boolean") throw new DecodeError("not a bool");
      return isWanted;
    }
  }
  return d.value(2);
}

/**
 * Returns the version that a first packet names, or null if it is not a Hello. Nothing else of a Hello
 * of another version is read.
 * @param {import("./decoder.js").Decoder} d
 */
export function helloVersion(d) {
  try {
    d.begin();
    return d.array(0) > 1 && d.int() === HELLO ? d.int() : null; // the rest may be missing
  } catch {
    return null;
  }
}
