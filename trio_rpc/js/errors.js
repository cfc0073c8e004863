/** The errors of a session. Their names and their meaning are those of the Python library. */

/** Whether the handler of a failed call ran (law 15). */
export const Fate = Object.freeze({
  /** The handler never ran: the call is safe to repeat. */
  NOT_STARTED: "not started",
  /** The handler began, and has ended. */
  STOPPED: "stopped",
  UNKNOWN: "unknown",
});

export class RpcError extends Error {
  static fate = Fate.UNKNOWN;

  constructor(message, { fate = new.target.fate, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.fate = fate;
  }
}

export class ProtocolError extends RpcError {}

/** This program did something that the protocol does not allow; nothing was sent. */
export class LocalProtocolError extends ProtocolError {
  static fate = Fate.NOT_STARTED;
}

/** The other end sent something illegal, which ended the session (law 14). */
export class RemoteProtocolError extends ProtocolError {}

/** One call failed; the session goes on. */
export class CallError extends RpcError {}

/**
 * The handler raised an exception. A handler in JavaScript throws one to choose the name and the
 * arguments that its caller gets: `new RemoteError("builtins.ValueError", "no", { args: ["no"] })`.
 */
export class RemoteError extends CallError {
  static fate = Fate.STOPPED;

  constructor(typeName, message, more = {}) {
    super(message, more);
    this.typeName = typeName;
    this.notes = more.notes ?? [];
    this.args = more.args;
    this.fields = more.fields;
    /** The parts of an exception group. */
    this.errors = more.errors;
    this.remoteTraceback = more.remoteTraceback ?? "";
  }
}

export class MethodNotFound extends CallError {
  static fate = Fate.NOT_STARTED;
}

export class InvalidArguments extends CallError {
  static fate = Fate.NOT_STARTED;

  constructor(message, parameter = "", more = {}) {
    super(message, more);
    this.parameter = parameter;
  }
}

export class Overloaded extends CallError {
  static fate = Fate.NOT_STARTED;
}

export class Unavailable extends CallError {
  static fate = Fate.NOT_STARTED;
}

/** The handler was cancelled at the other end, but not by this caller. */
export class RemoteCancelled extends CallError {
  static fate = Fate.STOPPED;
}

/** A value cannot be sent. Nothing was sent (law 14). */
export class EncodeError extends RpcError {
  static fate = Fate.NOT_STARTED;
}

/** Bytes or a value from the other end cannot be understood. */
export class DecodeError extends RpcError {}

/** The session was not opened. */
export class Refused extends RpcError {
  static fate = Fate.NOT_STARTED;
}

/** This end closed the session. */
export class SessionClosed extends RpcError {}

/** The other end or the network ended the session; `cause` says why, if that is known. */
export class SessionBroken extends RpcError {
  constructor(message, more = {}) {
    super(message, more);
    /** Whether the other end left with a Goodbye. */
    this.orderly = more.orderly ?? false;
  }
}

// The names are keys here, because a minifier changes the names of classes.
const NAMED = {
  RpcError, ProtocolError, LocalProtocolError, RemoteProtocolError, CallError, RemoteError,
  MethodNotFound, InvalidArguments, Overloaded, Unavailable, RemoteCancelled, EncodeError,
  DecodeError, Refused, SessionClosed, SessionBroken,
};
for (const [name, { prototype }] of Object.entries(NAMED)) {
  Object.defineProperty(prototype, "name", { value: name, writable: true, configurable: true });
}

/** The error of an aborted or timed out call, as `fetch` has it. */
export function abortReason(signal) {
  return signal.reason ?? new DOMException("the call was aborted", "AbortError");
}
