// Reads the notation of docs/vectors.json, which extends JSON with types that JSON lacks.
import * as rpc from "../../trio_rpc/js/session.js";

export const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
export const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");

const FLOATS = { inf: Infinity, "-inf": -Infinity, nan: NaN };
const number = (text) => FLOATS[text] ?? Number(text);

export const READERS = {
  $bytes: unhex,
  $int: (text) => (Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text)),
  $float: number,
  $map: (pairs) => new Map(pairs.map((pair) => pair.map(valueOf))),
  $tuple: (items) => rpc.Tuple.from(items, valueOf),
  $set: (items) => new Set(items.map(valueOf)),
  $frozenset: (items) => new rpc.FrozenSet(items.map(valueOf)),
  $datetime: (text) => new rpc.DateTime(text),
  $date: (text) => new rpc.PlainDate(text),
  $time: (text) => new rpc.PlainTime(text),
  $timedelta: (numbers) => new rpc.TimeSpan(...numbers),
  $decimal: (text) => new rpc.Decimal(text),
  $uuid: (text) => new rpc.UUID(text),
  $complex: (parts) => new rpc.Complex(...parts.map(number)),
  $reference: (numbers) => new rpc.Reference(...numbers),
  $ext: ([code, data]) => new rpc.Extension(code, unhex(data)),
};

/** Returns the value that a JSON value of the vectors stands for. */
export function valueOf(notation) {
  if (Array.isArray(notation)) return notation.map(valueOf);
  if (typeof notation !== "object" || notation === null) return notation;
  const [key, ...more] = Object.keys(notation);
  if (!more.length && key?.startsWith("$")) return READERS[key](notation[key]);
  return Object.fromEntries(Object.entries(notation).map(([name, one]) => [name, valueOf(one)]));
}
