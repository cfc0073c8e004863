/** Types of session.js. `trio-rpc typescript` writes interfaces for `session.proxy<Market>("market")`. */

// ── sessions ──

export interface CallOptions {
  /** Its abort cancels the call. The promise settles when the handler has ended. */
  signal?: AbortSignal;
  /** Milliseconds that the call may take. The other end gets the deadline. */
  timeoutMs?: number;
  metadata?: Record<string, unknown>;
  /** Arguments by name. */
  kwargs?: Record<string, unknown>;
  /** Settle at once when aborted, while the handler may still run. */
  abandonOnAbort?: boolean;
}

export interface StreamOptions extends CallOptions {
  /** Items, and bytes of them, that may be on their way: [1024, 1048576] by default. */
  credit?: [items: number, bytes: number];
}

/** The return value of a proxy's method: a promise of its result, or the items of a stream. */
export interface RemoteCall<Result = any> extends PromiseLike<Result> {
  catch<Other = never>(rejected?: ((reason: any) => Other | PromiseLike<Other>) | null): Promise<Result | Other>;
  finally(then?: (() => void) | null): Promise<Result>;
}

export interface ItemStream<Item = any> extends AsyncIterableIterator<Item> {
  return(): Promise<IteratorResult<Item>>;
}

export interface DuplexStreams<Sent = any, Received = any> {
  readable: ReadableStream<Received>;
  writable: WritableStream<Sent>;
  /** Settles when the handler has ended. */
  ended: Promise<void>;
  /** Cancels the call, and resolves when the handler has ended. */
  close(): Promise<unknown>;
}

export interface Started<Value = any> {
  value: Value;
  /** Settles when the handler has ended. */
  ended: Promise<unknown>;
}

/** A method of an untyped proxy. */
export interface ProxyMethod {
  (...args: any[]): RemoteCall & AsyncIterable<any>;
  stream(...args: any[]): ItemStream;
  duplex(...args: any[]): DuplexStreams;
  start(...args: any[]): Promise<Started>;
  notify(...args: any[]): Promise<void>;
}

export interface UntypedProxy {
  [method: string]: ProxyMethod;
}

/** Makes calls: a session, the Call of a handler, or a remote scope. */
export interface Caller {
  call<Result = any>(method: string, args?: readonly unknown[], options?: CallOptions): Promise<Result>;
  stream<Item = any>(method: string, args?: readonly unknown[], options?: StreamOptions): ItemStream<Item>;
  duplex<Sent = any, Received = any>(
    method: string, args?: readonly unknown[], options?: StreamOptions,
  ): DuplexStreams<Sent, Received>;
  /** Calls a method that reports its start with `task_status.started()`. */
  start<Value = any>(method: string, args?: readonly unknown[], options?: CallOptions): Promise<Started<Value>>;
  /** Resolves when the notification is on its way. */
  notify(method: string, args?: readonly unknown[], options?: CallOptions): Promise<void>;
  proxy<Service = UntypedProxy>(service?: string, options?: CallOptions): Service;
  openScope(options?: CallOptions): RemoteScope;
}

/** The method that `await using` calls, if the compiler's option `lib` has esnext.disposable. */
type AsyncDisposing = SymbolConstructor extends { readonly asyncDispose: infer Name extends symbol }
  ? { [Method in Name]: () => Promise<void> }
  : {};

/** Calls in a remote scope end, at the latest, when the scope is closed. */
export interface RemoteScope extends Caller, AsyncDisposing {
  close(): Promise<void>;
  readonly ended: Promise<unknown>;
}

export type SessionState = "connecting" | "connected" | "reconnecting" | "resumed" | "closed" | "lost";

export interface Session extends Caller, AsyncDisposing {
  readonly state: SessionState;
  readonly isOpen: boolean;
  readonly statistics: { callsOut: number; callsIn: number };
  /** Resolves when the session is over and nothing of it runs any more. */
  readonly closed: Promise<{ error: RpcError; orderly: boolean }>;
  /** Resolves with the milliseconds until the other end has answered. */
  ping(): Promise<number>;
  /** Says Goodbye, lets calls in flight end for `graceMs` (5,000), and closes the session. */
  close(options?: { reason?: string; graceMs?: number }): Promise<void>;
  addEventListener(
    type: "state", listener: (event: CustomEvent<SessionState>) => void, options?: AddEventListenerOptions,
  ): void;
  removeEventListener(type: "state", listener: (event: CustomEvent<SessionState>) => void): void;
}

/** A handler's view of its call. Calls that it makes here are within that call. */
export interface Call extends Caller {
  readonly session: Session;
  readonly method: string;
  /** Aborted when the caller cancels, its deadline passes, or the session ends. */
  readonly signal: AbortSignal;
  readonly metadata: Record<string, unknown>;
  /** Milliseconds that are left, or Infinity. */
  readonly timeLeft: number;
  /** Reports that a `startable` method is ready. */
  started(value?: unknown): void;
}

export interface Limits {
  maxCalls: number;
  maxNotifications: number;
  maxMessage: number;
  maxPacket: number;
  maxDepth: number;
  maxNodes: number;
}

export interface RegisteredType<T = any> {
  /** 64 to 127; the other end registers the same code. */
  code: number;
  class: new (...args: any[]) => T;
  write(value: T): unknown;
  read(value: any): T;
}

/** Names of services, and the methods of each. */
export type Services = Record<string, Record<string, (...args: any[]) => unknown>>;

export interface SessionOptions {
  services?: Services | ((session: Session) => Services);
  /** Identifies this end; the other end's `authenticate` gets it. */
  credentials?: unknown;
  /** Throws or rejects (with Refused, to say why) if the other end is not accepted. */
  authenticate?(credentials: unknown): unknown;
  /** Its abort ends the session. */
  signal?: AbortSignal;
  limits?: Partial<Limits>;
  types?: RegisteredType[];
  handshakeTimeoutMs?: number;
  /** Silence after which the other end is asked for a sign of life; Infinity for never. */
  keepaliveMs?: number;
  /** Milliseconds that an aborted call waits for its handler: 30,000. */
  cancelGraceMs?: number;
}

export interface ResumeOptions {
  /** Milliseconds without a connection after which the session is lost: 120,000. */
  graceMs?: number;
  /** Bytes that are kept until the other end has them: 4 MiB. */
  buffer?: number;
  firstDelayMs?: number;
  maxDelayMs?: number;
}

export interface ConnectOptions extends SessionOptions {
  /** Survive lost connections; the server needs `resume=True`. */
  resume?: boolean | ResumeOptions;
  /** The class of WebSockets, where there is none. */
  WebSocket?: any;
  /** Milliseconds that connecting may take: 10,000. */
  timeoutMs?: number;
}

/**
 * Connects to a session server, at ws:// or wss://. Rejects with Refused if the server does not accept this
 * end, with SessionBroken if there is no connection, and with the reason of an aborted signal.
 */
export function connect(url: string, options?: ConnectOptions): Promise<Session>;

/** A channel carries whole packets. `receive` resolves with null at the end, and rejects when it breaks. */
export interface Channel {
  /** Returns a promise when its user should wait before it sends more. */
  send(packet: Uint8Array): void | Promise<void>;
  receive(): Promise<Uint8Array | null>;
  close(): void | Promise<void>;
}

export function openSession(channel: Channel, options?: SessionOptions): Promise<Session>;

export class WebSocketChannel implements Channel {
  static open(url: string, options?: { WebSocket?: any; signal?: AbortSignal; timeoutMs?: number }): Promise<WebSocketChannel>;
  constructor(socket: any);
  send(packet: Uint8Array): void | Promise<void>;
  receive(): Promise<Uint8Array | null>;
  close(): void;
}

/** A channel over a MessagePort, a Worker, or the global scope of a worker. */
export class PortChannel implements Channel {
  constructor(port: any);
  send(packet: Uint8Array): void;
  receive(): Promise<Uint8Array | null>;
  close(): void;
}

// ── services ──

export type ParameterType =
  | "any" | "string" | "number" | "integer" | "boolean" | "function" | "stream" | "object" | "array"
  | ((value: any) => boolean);

/** A method whose arguments are checked, and may be given by name; "?" marks optional ones. */
export function method<F extends (...args: any[]) => unknown>(run: F, parameters?: Record<string, ParameterType>): F;
/** A one way method. */
export function notification<F extends (...args: any[]) => unknown>(run: F): F;
/** A function that returns an async iterable. An async generator function is one without this. */
export function stream<F extends (...args: any[]) => unknown>(run: F): F;
export function duplex(
  run: (streams: { readable: ReadableStream<any>; writable: WritableStream<any> }, ...args: any[]) => unknown,
): (...args: any[]) => unknown;
/** A function that gets its Call before its arguments. */
export function withCall<A extends any[], R>(run: (call: Call, ...args: A) => R): (...args: A) => R;
/** As `withCall`, for a method that calls `call.started(value)` and goes on. */
export function startable<A extends any[], R>(run: (call: Call, ...args: A) => R): (...args: A) => R;

/** Arguments by name, as the last argument of a call through a proxy. */
export function named(values: Record<string, unknown>): any;

// ── values ──

declare class Text {
  constructor(text: string);
  readonly text: string;
  toString(): string;
  toJSON(): string;
}
/** A date and a time with microseconds, as it was sent. A Date is sent as one. */
export class DateTime extends Text {
  toDate(): Date;
}
export class PlainDate extends Text {}
export class PlainTime extends Text {}
export class Decimal extends Text {}
export class UUID extends Text {}
export class TimeSpan {
  constructor(days: number, seconds?: number, microseconds?: number);
  readonly days: number;
  readonly seconds: number;
  readonly microseconds: number;
  readonly milliseconds: number;
}
export class Complex {
  constructor(real: number, imaginary: number);
  readonly real: number;
  readonly imaginary: number;
}
export class Reference {
  constructor(kind: number, number: number);
  readonly kind: number;
  readonly number: number;
}
export class Extension {
  constructor(code: number, data: Uint8Array);
  readonly code: number;
  readonly data: Uint8Array;
}
export class Tuple<T = any> extends Array<T> {}
export class FrozenSet<T = any> extends Set<T> {}

// ── errors ──

export const Fate: {
  readonly NOT_STARTED: "not started";
  readonly STOPPED: "stopped";
  readonly UNKNOWN: "unknown";
};
export type Fate = "not started" | "stopped" | "unknown";

export interface ErrorOptions {
  fate?: Fate;
  cause?: unknown;
}

export class RpcError extends Error {
  constructor(message: string, options?: ErrorOptions);
  /** Whether the handler of the failed call ran. */
  fate: Fate;
}
export class ProtocolError extends RpcError {}
export class LocalProtocolError extends ProtocolError {}
export class RemoteProtocolError extends ProtocolError {}
export class CallError extends RpcError {}
export class RemoteError extends CallError {
  constructor(typeName: string, message: string, more?: ErrorOptions & {
    args?: unknown[];
    fields?: Record<string, unknown>;
    notes?: string[];
    errors?: RemoteError[];
  });
  /** The class of the exception: "builtins.ValueError", or the bare name of a declared one. */
  typeName: string;
  notes: string[];
  args?: unknown[];
  fields?: Record<string, unknown>;
  /** The parts of an exception group. */
  errors?: RemoteError[];
  remoteTraceback: string;
}
export class MethodNotFound extends CallError {}
export class InvalidArguments extends CallError {
  constructor(message: string, parameter?: string, options?: ErrorOptions);
  parameter: string;
}
export class Overloaded extends CallError {}
export class Unavailable extends CallError {}
export class RemoteCancelled extends CallError {}
export class EncodeError extends RpcError {}
export class DecodeError extends RpcError {}
export class Refused extends RpcError {}
export class SessionClosed extends RpcError {}
export class SessionBroken extends RpcError {
  orderly: boolean;
}
