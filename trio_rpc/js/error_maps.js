/** Errors to the maps of docs/protocol.md, section 13, and back. */

import * as e from "./errors.js";
import { forPeople } from "./protocol.js";

const CLASSES = {
  __proto__: null, // "toString" is an unknown code
  method_not_found: e.MethodNotFound,
  overloaded: e.Overloaded,
  unavailable: e.Unavailable,
  cancelled: e.RemoteCancelled,
  deadline: e.RemoteCancelled,
  invalid_arguments: e.InvalidArguments,
};
/** The codes of errors that a handler cannot have caused, with their classes. */
const BEGUN = new Set(["raised", "cancelled", "deadline", "internal"]);
const BAD_MAP = "an error that cannot be read";

/** Makes the error that a ReplyErr stands for. */
export function fromMap(map) {
  if (!isMap(map)) return new e.DecodeError(BAD_MAP);
  const { code, message, parameter = "" } = map;
  const isKnown = BEGUN.has(code) || code in CLASSES;
  const begun = map.started ?? (BEGUN.has(code) || !isKnown);
  const fate = begun ? (isKnown ? e.Fate.STOPPED : e.Fate.UNKNOWN) : e.Fate.NOT_STARTED;
  if (code === "raised") return raised(map, fate) ?? new e.DecodeError(BAD_MAP);
  if (code === "invalid_arguments") return new e.InvalidArguments(message, parameter, { fate });
  if (code in CLASSES) return new CLASSES[code](message, { fate });
  return new e.RemoteError("internal", message, { fate, remoteTraceback: map.traceback });
}

const isText = (value) => typeof value === "string";
const optional = (value, test) => value === undefined || test(value);

function isMap(map) {
  return isText(map.code) && isText(map.message) && optional(map.traceback, isText) &&
    optional(map.started, (value) => typeof value === "boolean") && optional(map.parameter, isText);
}

function raised(map, fate, depth = 0) {
  const { type, message, args, fields, notes = [], errors } = map;
  const fits = isText(type) && Array.isArray(notes) && notes.every(isText) &&
    optional(args, Array.isArray) && depth < 16;
  if (!fits) return null;
  const more = { fate, args, fields, notes, remoteTraceback: map.traceback };
  if (errors !== undefined) {
    if (!Array.isArray(errors) || errors.length === 0) return null;
    more.errors = errors.map((part) =>
      part?.code === "raised" && isMap(part) ? raised(part, fate, depth + 1) : null);
    if (more.errors.includes(null)) return null;
  }
  return new e.RemoteError(type, message, more);
}

/** Makes the map for arguments that do not fit. */
export function invalidArguments({ message, parameter }) {
  return { code: "invalid_arguments", message, ...(parameter ? { parameter } : {}) };
}

const HIDDEN = "unreadable";

/** Returns the result of `read`, or `otherwise` if it throws, as a getter of any error may. */
function guarded(read, otherwise = HIDDEN) {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** Makes the map that a handler's error is sent as. */
export function toMap(error) {
  return guarded(() => mapOf(error), mapOf(HIDDEN));
}

function mapOf(error) {
  const isError = error instanceof Error;
  const { typeName: name = isError ? error.name : "thrown", args, fields, errors } = error instanceof e.RemoteError ? error : {};
  const [type, message] = [forPeople(String(name), 1000), isError ? String(error.message) : shown(error)];
  return { code: "raised", type, message, args, fields, errors: errors?.map(mapOf), ...(isError && notesOf(error)) };
}

/** Returns any value as text. */
export const shown = (value) => guarded(() => String(value));

/** Returns the message of any error, or the text of another value. */
export const messageOf = (error) => guarded(() => String(error?.message ?? error));

function notesOf(error) {
  const notes = Array.isArray(error.notes) ? error.notes.map(shown) : [];
  if (error.cause !== undefined) notes.push(`caused by ${shown(error.cause)}`);
  return notes.length ? { notes: notes.slice(0, 100).map((note) => forPeople(note, 1000)) } : {};
}
