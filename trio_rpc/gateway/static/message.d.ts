/** Types of message.js; held true by `tsc`, which checks that module, and by a test in a browser. */

/** One that is undefined is left out. */
export type Callbacks = Record<string, ((...args: any[]) => unknown) | undefined>;

/** What travels in a URL; one that is undefined is left out. */
export type Params = Record<string, string | number | boolean | bigint | undefined>;

export interface PostOptions {
  /** Aborting it cancels the work; the promise is rejected when that has ended. */
  signal?: AbortSignal;
  /** Milliseconds that the call may take, there as here. */
  timeoutMs?: number;
}

export interface MessageOptions {
  /** Where the gateway is mounted, "/rpc"; by default where this module came from. */
  path?: string;
  /** Whether it is reached by https and wss. */
  secure?: boolean;
}

export type State = "closed" | "connecting" | "open";

export interface MessageEvents {
  /** The connection has changed. */
  state: CustomEvent<{ state: State; reason: string }>;
  /** The gateway does not know this client any more; pending calls have been rejected. */
  lost: CustomEvent<{ reason: string }>;
}

/**
 * What a call is rejected with.
 *
 * `code`: "raised" (the method raised), "cancelled", "deadline", "internal", "refused" (not started; `status` is
 * that of the answer), "lost" (nobody can say what became of the work), "unreachable", "closed", "unconfirmed".
 */
export class MessageError extends Error {
  constructor(
    code: string,
    text: string,
    more?: { status?: number; parameter?: string; errorType?: string },
  );
  code: string;
  status: number;
  /** The parameter that is to blame, or "". */
  parameter: string;
  /** The name of the class of what was raised, or "". */
  errorType: string;
}

/** Calls methods of a gateway, which calls back while they run. */
export class Message extends EventTarget {
  /** By default it calls the server that this module came from. */
  constructor(host?: string, port?: number | string, options?: MessageOptions);
  /** Where the gateway is. */
  base: URL;
  readonly state: State;
  /** The name by which the gateway knows this client; null while it does not. */
  readonly clientId: string | null;
  /** Connect, and stay connected until `close`; rejected if the first attempt fails. */
  connect(): Promise<this>;
  /** Leave: pending calls are rejected with the code "closed", and their work is cancelled. */
  close(): void;
  /**
   * Call a method, run its callbacks one after the other, and return its result.
   *
   * Without a connection one is made for a call with callbacks; a call without any is one request then, and aborting
   * it hangs up. `data` is what JSON has: NaN, -0, a Map or the like is a TypeError. A callback is called with the
   * arguments that the method gives. One that throws is reported to the method; the call goes on.
   */
  post(
    method: string,
    data?: Record<string, any>,
    callbacks?: Callbacks,
    options?: PostOptions,
  ): Promise<any>;
  /** GET a page of the same server, and return its JSON; null for an empty one. */
  get(path: string, params?: Params): Promise<any>;
  /** PUT JSON, and return the JSON of the answer. */
  put(path: string, data?: any): Promise<any>;
  /** DELETE something, and return the JSON of the answer. */
  delete(path: string, params?: Params): Promise<any>;
  addEventListener<K extends keyof MessageEvents>(
    type: K,
    listener: (event: MessageEvents[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}
