/** Python's values that JavaScript lacks. Each arrives as it was sent, without rounding. */

import { DecodeError } from "./errors.js";

const fix = (value, fields) => Object.freeze(Object.assign(value, fields));

class Text {
  constructor(text) {
    if (typeof text !== "string" || text.length > 1024 || !new.target.accepts(text)) {
      throw new DecodeError(`${JSON.stringify(String(text).slice(0, 60))} is not a ${new.target.what}`);
    }
    fix(this, { text });
  }

  static accepts(text) {
    return this.form.test(text);
  }

  toString() {
    return this.text;
  }

  toJSON() {
    return this.text;
  }
}

const DATE = "(\\d{4})-(\\d\\d)-(\\d\\d)";
const OFFSET = "(?:[+-]([01]\\d|2[0-3]):[0-5]\\d(?::[0-5]\\d(?:\\.\\d{6})?)?)?";
const TIME = `([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{6})?${OFFSET}`;

function isDay(text) {
  const [year, month, day] = text.slice(0, 10).split("-").map(Number);
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const days = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1];
  return year > 0 && day > 0 && day <= days;
}

/** A date and a time of day, with microseconds; without an offset it is a local time. */
export class DateTime extends Text {
  static what = "date and time";
  static form = new RegExp(`^${DATE}T${TIME}$`);

  static accepts(text) {
    return this.form.test(text) && isDay(text);
  }

  /** Converts it to a Date, which has milliseconds only. */
  toDate() {
    return new Date(this.text.replace(/(\.\d{3})\d{3}/, "$1"));
  }
}

export class PlainDate extends Text {
  static what = "date";
  static form = new RegExp(`^${DATE}$`);

  static accepts(text) {
    return this.form.test(text) && isDay(text);
  }
}

export class PlainTime extends Text {
  static what = "time of day";
  static form = new RegExp(`^${TIME}$`);
}

export class Decimal extends Text {
  static what = "decimal";
  static form = /^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[Ee][+-]?\d{1,9})?|NaN|sNaN|Infinity)$/;
}

export class UUID extends Text {
  static what = "UUID";
  static form = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/;
}

/** A time span: days may be negative, seconds are 0 to 86,399, microseconds 0 to 999,999. */
export class TimeSpan {
  constructor(days, seconds = 0, microseconds = 0) {
    if (
      !within(days, -999_999_999, 999_999_999) ||
      !within(seconds, 0, 86_399) ||
      !within(microseconds, 0, 999_999)
    ) {
      throw new DecodeError("not days, 0 to 86,399 seconds and 0 to 999,999 microseconds");
    }
    fix(this, { days, seconds, microseconds });
  }

  get milliseconds() {
    return (this.days * 86_400 + this.seconds) * 1000 + this.microseconds / 1000;
  }
}

function within(number, least, most) {
  return Number.isInteger(number) && least <= number && number <= most;
}

export class Complex {
  constructor(real, imaginary) {
    fix(this, { real, imaginary });
  }
}

/** Stands for a function or a stream of the other end; the session makes functions of them. */
export class Reference {
  constructor(kind, number) {
    fix(this, { kind, number });
  }
}

/** A MessagePack extension without a meaning here. */
export class Extension {
  constructor(code, data) {
    fix(this, { code, data });
  }
}

/** Python's tuple. Everything that it derives (`map`, `slice`) is an ordinary array. */
export class Tuple extends Array {
  static get [Symbol.species]() {
    return Array;
  }
}

export class FrozenSet extends Set {}

/** Their fields are their values. */
const SCALARS = [DateTime, PlainDate, PlainTime, Decimal, UUID, TimeSpan, Complex, Reference, Extension];

let distinct = 0;

/**
 * Returns a text that is the same for two values that are one key in Python.
 * @throws {DecodeError} Python cannot compare the value, so it cannot be a key or an element
 */
export function keyOf(value) {
  switch (typeof value) {
    case "string": return `s${value}`;
    case "boolean": case "bigint": return `n${Number(value) == value ? Number(value) : value}`;
    case "number": return value === value ? `n${value + 0}` : `nan${distinct++}`;
    case "object": return value === null ? "z" : objectKey(value);
    case "function": return `o${distinct++}`; // a callback of the other end, or one of this end
  }
  throw notAKey();
}

function objectKey(value) {
  if (value instanceof Uint8Array) return `b${Array.from(value)}`;
  if (value instanceof Tuple) return `t${joined(Array.from(value, keyOf))}`;
  if (value instanceof FrozenSet) return `f${joined(Array.from(value, keyOf).sort())}`;
  if (value instanceof Decimal && value.text.includes("sNaN")) throw notAKey();
  const scalar = SCALARS.indexOf(value.constructor);
  if (scalar >= 0) return `${scalar} ${Object.values(value)}`;
  if (value instanceof Date) return `d${value.getTime()}`;
  if (Array.isArray(value) || value instanceof Set || value instanceof Map || isPlain(value)) {
    throw notAKey();
  }
  return `o${distinct++}`; // a user's value: nothing is known of it
}

/** Joins texts so that others give another text. A length in front needs no escapes, which would double at each level. */
function joined(keys) {
  return keys.map((key) => `${key.length} ${key}`).join("");
}

function notAKey() {
  return new DecodeError("not a key or an element");
}

/** Tells whether a value is an object literal, or an object without a prototype. */
export function isPlain(value) {
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}
