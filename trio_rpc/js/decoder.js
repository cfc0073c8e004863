/**
 * Decodes MessagePack, and checks the rules of docs/protocol.md, section 3, while it does.
 *
 * A value is `depth` levels inside its message. Every length is checked against the bytes that are
 * there before anything is allocated, and every value is counted.
 */

import { DecodeError } from "./errors.js";
import * as v from "./values.js";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const MAX_NUMBER = Number.MAX_SAFE_INTEGER;

export class Decoder {
  #limits;
  #types;
  #bytes;
  #view;
  #end = 0;
  #nodes = 0;
  #inside = 0;
  at = 0;
  /** Makes the value of a reference from its kind and number. */
  refer = null;
  /** The error of a registered type that could not be read, in the last message. */
  unreadable = null;

  /**
   * @param {{maxMessage: number, maxDepth: number, maxNodes: number}} limits
   * @param {Map<number, (value: unknown) => unknown>} types functions that read users' types
   */
  constructor(limits, types = new Map()) {
    this.#limits = limits;
    this.#types = types;
  }

  load(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
    this.#end = bytes.length;
  }

  get isDone() {
    return this.at === this.#end;
  }

  /** Begins the next message: the counts begin again. */
  begin() {
    this.#nodes = this.#inside = 0;
    this.unreadable = this.refer = null;
  }

  // ── the parts of a message, whose types are known ──

  /** Reads the header of an array, and returns its length. */
  array(depth) {
    const tag = this.#tag();
    if (tag >= 0x90 && tag < 0xa0) return this.#container(tag & 15, 1, depth);
    if (tag === 0xdc) return this.#container(this.#uint16(), 1, depth);
    if (tag === 0xdd) return this.#container(this.#uint32(), 1, depth);
    throw new DecodeError("not an array");
  }

  /** Reads the header of a map, and returns its length. */
  map(depth) {
    const tag = this.#tag();
    if (tag >= 0x80 && tag < 0x90) return this.#container(tag & 15, 2, depth);
    if (tag === 0xde) return this.#container(this.#uint16(), 2, depth);
    if (tag === 0xdf) return this.#container(this.#uint32(), 2, depth);
    throw new DecodeError("not a map");
  }

  /** Tells whether the next value is an integer: 1.0 is not, though JavaScript has one type for both. */
  get isInt() {
    const tag = this.#bytes[this.at];
    return tag < 0x80 || tag >= 0xe0 || (tag >= 0xcc && tag <= 0xd3);
  }

  /** Reads an integer of the protocol. */
  int(least = 0) {
    const number = this.isInt ? this.value(0) : NaN;
    if (!(typeof number === "number" && number >= least && number <= MAX_NUMBER)) {
      throw new DecodeError(`not an integer from ${least} to 2**53 - 1`);
    }
    return number;
  }

  text() {
    const value = this.value(0);
    if (typeof value !== "string") throw new DecodeError("not text");
    return value;
  }

  bin() {
    const value = this.value(0);
    if (!(value instanceof Uint8Array)) throw new DecodeError("not bytes");
    return value;
  }

  /** Reads a map with str keys; `read` reads the value of a key, `value` does by default. */
  named(depth, read = () => this.value(depth + 1)) {
    const found = {};
    for (let left = this.map(depth); left > 0; left--) {
      const key = this.text();
      add(found, key, read(key));
    }
    return found;
  }

  // ── values ──

  value(depth) {
    const tag = this.#tag();
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.#map(tag & 15, depth);
    if (tag < 0xa0) return this.#array(tag & 15, depth);
    if (tag < 0xc0) return this.#text(tag & 31);
    if (tag >= 0xe0) return tag - 256;
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this.#bin(this.#uint8());
      case 0xc5: return this.#bin(this.#uint16());
      case 0xc6: return this.#bin(this.#uint32());
      case 0xc7: return this.#extension(this.#uint8(), depth);
      case 0xc8: return this.#extension(this.#uint16(), depth);
      case 0xc9: return this.#extension(this.#uint32(), depth);
      case 0xca: return this.#view.getFloat32(this.#take(4));
      case 0xcb: return this.#view.getFloat64(this.#take(8));
      case 0xcc: return this.#uint8();
      case 0xcd: return this.#uint16();
      case 0xce: return this.#uint32();
      case 0xcf: return exact(this.#view.getBigUint64(this.#take(8)));
      case 0xd0: return this.#view.getInt8(this.#take(1));
      case 0xd1: return this.#view.getInt16(this.#take(2));
      case 0xd2: return this.#view.getInt32(this.#take(4));
      case 0xd3: return exact(this.#view.getBigInt64(this.#take(8)));
      case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
        return this.#extension(1 << (tag - 0xd4), depth);
      case 0xd9: return this.#text(this.#uint8());
      case 0xda: return this.#text(this.#uint16());
      case 0xdb: return this.#text(this.#uint32());
      case 0xdc: return this.#array(this.#uint16(), depth);
      case 0xdd: return this.#array(this.#uint32(), depth);
      case 0xde: return this.#map(this.#uint16(), depth);
      case 0xdf: return this.#map(this.#uint32(), depth);
    }
    throw new DecodeError("the byte c1");
  }

  #take(size) {
    const at = this.at;
    if (size > this.#end - at) throw new DecodeError("a length exceeds the bytes");
    this.at = at + size;
    return at;
  }

  #tag() {
    this.#count(1);
    return this.#bytes[this.#take(1)];
  }

  #count(nodes) {
    this.#nodes += nodes;
    if (this.#nodes > this.#limits.maxNodes) {
      throw new DecodeError("too many values");
    }
  }

  #uint8() {
    return this.#bytes[this.#take(1)];
  }

  #uint16() {
    return this.#view.getUint16(this.#take(2));
  }

  #uint32() {
    return this.#view.getUint32(this.#take(4));
  }

  #level(depth) {
    if (depth >= this.#limits.maxDepth) {
      throw new DecodeError("too many levels");
    }
  }

  #container(length, each, depth) {
    this.#level(depth);
    // Of a message's own array the elements are read one by one; a Hello of a later version may have others.
    if (depth && length * each > this.#end - this.at) throw new DecodeError("a length exceeds the bytes");
    return length;
  }

  #array(length, depth, into = []) {
    this.#container(length, 1, depth);
    for (let index = 0; index < length; index++) into.push(this.value(depth + 1));
    return into;
  }

  /** Reads a map: an object if all keys are text, otherwise a Map. */
  #map(length, depth) {
    this.#container(length, 2, depth);
    const object = {};
    for (let index = 0; index < length; index++) {
      const key = this.#mapKey();
      if (typeof key !== "string") return this.#mixed(object, key, length - index, depth);
      add(object, key, this.value(depth + 1));
    }
    return object;
  }

  #mapKey() {
    const key = this.value(MAX_NUMBER);
    if (typeof key === "string" || key instanceof Uint8Array) return key;
    throw new DecodeError("a key that is not text or bytes");
  }

  #mixed(object, first, left, depth) {
    const pairs = Object.entries(object);
    for (let key = first; ; key = this.#mapKey()) {
      pairs.push([key, this.value(depth + 1)]);
      if (--left === 0) return distinctMap(pairs);
    }
  }

  #text(size) {
    const at = this.#take(size);
    if (size <= 24) {
      let text = "";
      for (let index = at; index < at + size; index++) {
        const byte = this.#bytes[index];
        if (byte >= 0x80) return this.#decoded(at, size);
        text += String.fromCharCode(byte);
      }
      return text;
    }
    return this.#decoded(at, size);
  }

  #decoded(at, size) {
    try {
      return utf8.decode(this.#bytes.subarray(at, at + size));
    } catch {
      throw new DecodeError("not UTF-8");
    }
  }

  #bin(size) {
    const at = this.#take(size);
    return this.#bytes.slice(at, at + size);
  }

  // ── extensions ──

  #extension(size, depth) {
    const code = this.#view.getInt8(this.#take(1));
    if (size > this.#end - this.at) throw new DecodeError("a length exceeds the bytes");
    this.#count(3);
    const end = this.at + size;
    const value = (code >= 1 && code <= 3) || code === 12 || code >= 64
      ? this.#ofValues(code, end, depth)
      : this.#plain(code, this.#bytes.subarray(this.at, end));
    this.at = end;
    return value;
  }

  #ofValues(code, end, depth) {
    this.#level(depth);
    this.#inside += end - this.at;
    if (this.#inside > 4 * this.#limits.maxMessage) throw new DecodeError("too large");
    const [outer, data] = [this.#end, this.#bytes.slice(this.at, end)];
    this.#end = end;
    const value = code >= 64 ? this.#users(code, data, depth) : this.#collection(code, depth);
    if (!this.isDone) throw new DecodeError("not one value");
    this.#end = outer;
    return value;
  }

  #collection(code, depth) {
    const items = this.#array(this.array(depth + 1), depth + 1, code === 1 ? new v.Tuple() : []);
    if (code === 1) return items;
    if (code === 12) {
      if (items.length % 2) throw new DecodeError("a key without a value");
      return distinctMap(items.flatMap((key, at) => (at % 2 ? [] : [[key, items[at + 1]]])));
    }
    const found = new Map(items.map((item) => [v.keyOf(item), item]));
    return new (code === 2 ? Set : v.FrozenSet)(found.values());
  }

  #users(code, data, depth) {
    const value = this.value(depth + 1);
    const read = this.#types.get(code);
    if (read === undefined) return new v.Extension(code, data);
    try {
      return read(value);
    } catch (error) {
      this.unreadable ??= error || new DecodeError("thrown");
      return null;
    }
  }

  #plain(code, data) {
    switch (code) {
      case 4: return new v.DateTime(ascii(data));
      case 5: return new v.PlainDate(ascii(data));
      case 6: return new v.PlainTime(ascii(data));
      case 7: return new v.TimeSpan(...this.#numbers(data, 3));
      case 8: return new v.Decimal(ascii(data));
      case 9: return uuid(data);
      case 10: return bigInteger(data);
      case 11: return complex(data);
      case 32: return this.#reference(data);
      case -1: return timestamp(data);
    }
    if (code < 0) throw new DecodeError(`the extension ${code}`);
    return new v.Extension(code, data.slice());
  }

  /** Reads a payload that is an array of that many integers. They do not count as nodes of the message. */
  #numbers(data, count) {
    const inner = new Decoder({ maxDepth: 2, maxNodes: count + 1 });
    inner.load(data);
    const numbers = [];
    for (let left = inner.array(1); left > 0; left--) {
      numbers.push(inner.isInt ? inner.value(1) : NaN);
    }
    if (!inner.isDone || numbers.length !== count) throw new DecodeError(`not ${count} integers`);
    return numbers;
  }

  #reference(data) {
    const numbers = this.#numbers(data, 2);
    if (!numbers.every((number) => number >= 0 && number <= MAX_NUMBER)) {
      throw new DecodeError("not a reference");
    }
    if (this.refer === null) throw new DecodeError("a reference here");
    return this.refer(...numbers);
  }
}

function exact(big) {
  const number = Number(big);
  return Number.isSafeInteger(number) ? number : big;
}

/** Adds to an object. The key `__proto__` becomes a property like any other. */
function add(object, key, value) {
  if (Object.hasOwn(object, key)) throw new DecodeError("a key twice");
  if (key === "__proto__") {
    Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true });
  } else {
    object[key] = value;
  }
}

function distinctMap(pairs) {
  if (new Set(pairs.map(([key]) => v.keyOf(key))).size !== pairs.length) {
    throw new DecodeError("a key twice");
  }
  return new Map(pairs);
}

function ascii(data) {
  return data.length > 1024 ? "" : String.fromCharCode(...data);
}

function uuid(data) {
  if (data.length !== 16) throw new DecodeError("not 16 bytes");
  const text = hex(data);
  return new v.UUID([0, 8, 12, 16, 20].map((at, index, all) => text.slice(at, all[index + 1])).join("-"));
}

function hex(data) {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function bigInteger(data) {
  if (data.length < 1 || data.length > 1024) throw new DecodeError("not 1 to 1,024 bytes");
  return exact(BigInt.asIntN(8 * data.length, BigInt(`0x${hex(data)}`)));
}

function complex(data) {
  if (data.length !== 16) throw new DecodeError("not 16 bytes");
  const view = new DataView(data.buffer, data.byteOffset, 16);
  return new v.Complex(view.getFloat64(0), view.getFloat64(8));
}

/** MessagePack's own timestamp: 32 bits of seconds, 30 + 34, or 32 + 64. */
function timestamp(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  let [seconds, nanoseconds] = [0n, 0];
  if (data.length === 4) {
    seconds = BigInt(view.getUint32(0));
  } else if (data.length === 8) {
    nanoseconds = view.getUint32(0) >>> 2;
    seconds = view.getBigUint64(0) & 0x3ffffffffn;
  } else if (data.length === 12) {
    nanoseconds = view.getUint32(0);
    seconds = view.getBigInt64(4);
  } else {
    throw new DecodeError("not a timestamp");
  }
  // The years 1 to 9999.
  if (nanoseconds > 999_999_999 || seconds < -62_135_596_800n || seconds > 253_402_300_799n) {
    throw new DecodeError("not a timestamp");
  }
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  const micro = Math.floor(nanoseconds / 1000);
  return new v.DateTime(`${whole}${micro ? `.${String(micro).padStart(6, "0")}` : ""}+00:00`);
}
