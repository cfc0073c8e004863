/** Encodes MessagePack within the limits of the other end. A value that cannot be sent raises (law 14). */

import { DecodeError, EncodeError } from "./errors.js";
import * as v from "./values.js";

const utf8 = new TextEncoder();
/** Bytes of the buffer that is kept from message to message. */
const KEPT = 1 << 16;

export class Encoder {
  #limits;
  #types;
  #refer;
  #buffer = new Uint8Array(KEPT);
  #view = new DataView(this.#buffer.buffer);
  #at = 0;
  #nodes = 0;

  /** @param {Map<Function, {code: number, write: (value: any) => unknown}>} types by class */
  constructor(types = new Map()) {
    this.#types = types;
  }

  /**
   * Encodes one message.
   * @param {unknown[]} fields
   * @param {{maxMessage: number, maxDepth: number, maxNodes: number}} limits of the receiver
   * @param {((value: unknown) => v.Reference) | null} refer makes references of functions and streams
   */
  encode(fields, limits, refer = null) {
    this.#limits = limits;
    this.#refer = refer;
    this.#at = this.#nodes = 0;
    try {
      this.#value(fields, 0);
      return this.#buffer.slice(0, this.#at);
    } catch (error) {
      // The values of this program check themselves with DecodeError.
      throw error instanceof DecodeError ? new EncodeError(error.message) : error;
    } finally {
      if (this.#buffer.length > KEPT) this.#grow(KEPT);
    }
  }

  #value(value, depth) {
    this.#count(1);
    switch (typeof value) {
      case "string": return this.#text(value);
      case "number": return this.#number(value);
      case "boolean": return this.#byte(value ? 0xc3 : 0xc2);
      case "bigint": return this.#bigint(value);
      case "undefined": throw new EncodeError("undefined cannot be sent inside an array; use null");
      case "function": return this.#reference(value);
      case "object": return value === null ? this.#byte(0xc0) : this.#object(value, depth);
    }
    throw new EncodeError("a symbol cannot be sent");
  }

  #object(value, depth) {
    if (Array.isArray(value)) {
      if (value instanceof v.Tuple) return this.#inside(1, depth, () => this.#array(value, depth + 1));
      return this.#array(value, depth);
    }
    if (value instanceof Uint8Array) return this.#bin(value);
    if (value instanceof ArrayBuffer) return this.#bin(new Uint8Array(value));
    if (typeof value[Symbol.asyncIterator] === "function") return this.#reference(value);
    if (v.isPlain(value)) return this.#map(ownEntries(value), depth);
    if (value instanceof Map) return this.#anyMap(value, depth);
    if (value instanceof Set) return this.#set(value, depth);
    const type = this.#types.get(value.constructor);
    if (type !== undefined) return this.#inside(type.code, depth, () => this.#value(type.write(value), depth + 1));
    const scalar = scalarOf(value);
    if (scalar !== null) return this.#extension(...scalar);
    return this.#reference(value);
  }

  #reference(value) {
    const reference = this.#refer?.(value);
    if (reference) return this.#extension(...scalarOf(reference));
    const what = typeof value === "function" ? "a function" : `an object of the class ${value.constructor?.name}`;
    throw new EncodeError(
      `${what} cannot be sent here: only arguments of calls are functions or streams`,
    );
  }

  #tooMuch(limit) {
    return `the message exceeds the other end's ${limit} of ${this.#limits[limit]}`;
  }

  #count(nodes) {
    this.#nodes += nodes;
    if (this.#nodes > this.#limits.maxNodes) {
      throw new EncodeError(this.#tooMuch("maxNodes"));
    }
  }

  #level(depth) {
    if (depth >= this.#limits.maxDepth) {
      throw new EncodeError(this.#tooMuch("maxDepth"));
    }
  }

  /** Makes room, and returns the place for that many bytes. */
  #take(size) {
    const at = this.#at;
    const needed = at + size;
    if (needed > this.#limits.maxMessage) {
      throw new EncodeError(this.#tooMuch("maxMessage"));
    }
    if (needed > this.#buffer.length) this.#grow(Math.max(needed, 2 * this.#buffer.length));
    this.#at = needed;
    return at;
  }

  #grow(size) {
    const buffer = new Uint8Array(size);
    buffer.set(this.#buffer.subarray(0, Math.min(this.#at, size)));
    this.#buffer = buffer;
    this.#view = new DataView(buffer.buffer);
  }

  #byte(byte) {
    const at = this.#take(1); // before the buffer is read: it may grow
    this.#buffer[at] = byte;
  }

  #sized(tag, size, number) {
    const at = this.#take(1 + size);
    this.#buffer[at] = tag;
    if (size === 1) this.#view.setUint8(at + 1, number);
    else if (size === 2) this.#view.setUint16(at + 1, number);
    else this.#view.setUint32(at + 1, number);
  }

  #number(value) {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      const at = this.#take(9);
      this.#buffer[at] = 0xcb;
      return this.#view.setFloat64(at + 1, value);
    }
    if (value >= 0) {
      if (value < 0x80) this.#byte(value);
      else if (value <= 0xff) this.#sized(0xcc, 1, value);
      else if (value <= 0xffff) this.#sized(0xcd, 2, value);
      else if (value <= 0xffffffff) this.#sized(0xce, 4, value);
      else this.#int64(0xcf, BigInt(value));
    } else if (value >= -32) this.#byte(value & 0xff);
    else if (value >= -0x80) this.#sized(0xd0, 1, value);
    else if (value >= -0x8000) this.#sized(0xd1, 2, value);
    else if (value >= -0x80000000) this.#sized(0xd2, 4, value);
    else this.#int64(0xd3, BigInt(value));
  }

  #int64(tag, big) {
    const at = this.#take(9);
    this.#buffer[at] = tag;
    this.#view.setBigUint64(at + 1, BigInt.asUintN(64, big));
  }

  #bigint(big) {
    if (big >= Number.MIN_SAFE_INTEGER && big <= Number.MAX_SAFE_INTEGER) return this.#number(Number(big));
    if (big > 0 && big === BigInt.asUintN(64, big)) return this.#int64(0xcf, big);
    if (big < 0 && big === BigInt.asIntN(64, big)) return this.#int64(0xd3, big);
    let size = 9;
    while (size <= 1024 && BigInt.asIntN(8 * size, big) !== big) size++;
    if (size > 1024) throw new EncodeError("an integer has at most 1,024 bytes");
    const digits = BigInt.asUintN(8 * size, big).toString(16).padStart(2 * size, "0");
    this.#extension(10, fromHex(digits));
  }

  #text(text) {
    const size = byteLength(text);
    if (size < 32) this.#byte(0xa0 | size);
    else if (size <= 0xff) this.#sized(0xd9, 1, size);
    else if (size <= 0xffff) this.#sized(0xda, 2, size);
    else this.#sized(0xdb, 4, size);
    let at = this.#take(size);
    if (size === text.length && size <= 48) {
      for (let index = 0; index < size; index++) this.#buffer[at++] = text.charCodeAt(index);
    } else {
      utf8.encodeInto(text, this.#buffer.subarray(at, at + size));
    }
  }

  #bin(data) {
    const size = data.length;
    if (size <= 0xff) this.#sized(0xc4, 1, size);
    else if (size <= 0xffff) this.#sized(0xc5, 2, size);
    else this.#sized(0xc6, 4, size);
    const at = this.#take(size);
    this.#buffer.set(data, at);
  }

  #header(fixed, tag, length, depth) {
    this.#level(depth);
    if (length < 16) this.#byte(fixed | length);
    else if (length <= 0xffff) this.#sized(tag, 2, length);
    else this.#sized(tag + 1, 4, length);
  }

  #array(items, depth) {
    this.#header(0x90, 0xdc, items.length, depth);
    for (let index = 0; index < items.length; index++) this.#value(items[index], depth + 1);
  }

  #map(pairs, depth) {
    this.#header(0x80, 0xde, pairs.length, depth);
    for (const [key, value] of pairs) {
      this.#value(key, depth + 1);
      this.#value(value, depth + 1);
    }
  }

  /** Encodes a Map: as a map if its keys are text or bytes, otherwise as extension 12. */
  #anyMap(map, depth) {
    const pairs = [...map];
    if (new Set(pairs.map(([key]) => v.keyOf(key))).size !== pairs.length) {
      throw new EncodeError("a Map with two keys that are one in Python");
    }
    if (pairs.every(([key]) => typeof key === "string" || key instanceof Uint8Array)) {
      return this.#map(pairs, depth);
    }
    this.#inside(12, depth, () => this.#counted(pairs.flat(), depth + 1));
  }

  #set(set, depth) {
    const items = [...set];
    items.forEach(v.keyOf);
    this.#inside(set instanceof v.FrozenSet ? 3 : 2, depth, () => this.#counted(items, depth + 1));
  }

  /** Encodes an array that is itself a value. */
  #counted(items, depth) {
    this.#count(1);
    this.#array(items, depth);
  }

  /** Writes an extension of values: its payload first, then its header, which says how long it is. */
  #inside(code, depth, write) {
    this.#level(depth);
    this.#count(3);
    if (code === 1) this.#count(1); // the array of a tuple
    const from = this.#at;
    write();
    const payload = this.#buffer.slice(from, this.#at);
    this.#at = from;
    this.#payload(code, payload);
  }

  #extension(code, payload) {
    this.#count(3);
    this.#payload(code, payload);
  }

  #payload(code, payload) {
    const size = payload.length;
    const fixed = [1, 2, 4, 8, 16].indexOf(size);
    if (fixed >= 0) this.#byte(0xd4 + fixed);
    else if (size <= 0xff) this.#sized(0xc7, 1, size);
    else if (size <= 0xffff) this.#sized(0xc8, 2, size);
    else this.#sized(0xc9, 4, size);
    this.#byte(code & 0xff);
    const at = this.#take(size);
    this.#buffer.set(payload, at);
  }
}

/** Returns the entries of a plain object; a property that is undefined is left out. */
function ownEntries(object) {
  return Object.entries(object).filter((pair) => pair[1] !== undefined);
}

/** Returns code and payload of a value that is one extension, or null. */
function scalarOf(value) {
  if (value instanceof Date) return [4, ascii(dateText(value))];
  if (value instanceof v.DateTime) return [4, ascii(value.text)];
  if (value instanceof v.PlainDate) return [5, ascii(value.text)];
  if (value instanceof v.PlainTime) return [6, ascii(value.text)];
  if (value instanceof v.TimeSpan) return [7, numbers(value.days, value.seconds, value.microseconds)];
  if (value instanceof v.Decimal) return [8, ascii(value.text)];
  if (value instanceof v.UUID) return [9, fromHex(value.text.replaceAll("-", ""))];
  if (value instanceof v.Complex) return [11, floats(value.real, value.imaginary)];
  if (value instanceof v.Reference) return [32, numbers(value.kind, value.number)];
  if (value instanceof v.Extension) return [value.code, value.data];
  return null;
}

function dateText(date) {
  if (!(date.getTime() >= -62_135_596_800_000 && date.getTime() < 253_402_300_800_000)) {
    throw new EncodeError("a Date that is not of the years 1 to 9999");
  }
  return new v.DateTime(date.toISOString().replace(/\.(\d+)Z$/, (_, ms) => `${+ms ? `.${ms}000` : ""}+00:00`)).text;
}

const ascii = (text) => utf8.encode(text);
const NO_LIMITS = { maxMessage: Infinity, maxDepth: 2, maxNodes: 9 };

function numbers(...of) {
  return new Encoder().encode(of, NO_LIMITS);
}

function floats(...of) {
  const data = new DataView(new ArrayBuffer(16));
  of.forEach((number, index) => data.setFloat64(8 * index, number));
  return new Uint8Array(data.buffer);
}

function fromHex(digits) {
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Counts the bytes of a text in UTF-8. A half of a surrogate pair has none, and is refused. */
function byteLength(text) {
  let size = text.length;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    if (unit < 0x80) continue;
    size += unit < 0x800 ? 1 : 2;
    if (unit < 0xd800 || unit > 0xdfff) continue;
    const next = unit < 0xdc00 ? text.charCodeAt(++index) : 0;
    if (!(next >= 0xdc00 && next <= 0xdfff)) throw new EncodeError("text with half of a surrogate pair");
  }
  return size;
}
