/** Types of message.js. `tsc` checks that module against them, and so does a test in a browser. */

/** Functions by the names of the parameters that take them. An undefined one is left out. */
export type Callbacks = Record<string, ((...args: any[]) => unknown) | undefined>;

/** The query parameters of a URL. An undefined one is left out. */
export type Params = Record<string, string | number | boolean | bigint | undefined>;

export interface PostOptions {
  /** Aborting it cancels the call; the promise is rejected when the call has ended. */
  signal?: AbortSignal;
  /** Milliseconds after which the call is cancelled, at both ends. */
  timeoutMs?: number;
}

export interface MessageOptions {
  /**
   * The path at which the gateway is mounted, such as "/rpc". By default, the path that this module
   * came from, or "/" if a host is given.
   */
  path?: string;
  /** Whether to use https and wss. By default, if this module was loaded by https. */
  secure?: boolean;
}

export type State = "closed" | "connecting" | "open";

export interface MessageEvents {
  /** The state of the connection has changed. */
  state: CustomEvent<{ state: State; reason: string }>;
  /** The gateway no longer knows this client; pending calls have been rejected. */
  lost: CustomEvent<{ reason: string }>;
}

/**
 * The error that a call is rejected with.
 *
 * `code`: "raised" (the method raised an exception), "cancelled", "deadline", "internal", "refused"
 * (the call was not started; `status` is the status of the answer), "lost" (the outcome of the call
 * is unknown), "unreachable", "closed", "unconfirmed".
 */
export class MessageError extends Error {
  constructor(
    code: string,
    text: string,
    more?: { status?: number; parameter?: string; errorType?: string },
  );
  code: string;
  status: number;
  /** The parameter at fault, or "". */
  parameter: string;
  /** The class name of the exception that the method raised, or "". */
  errorType: string;
}

/**
 * A job: a call of a method marked with `@outlives`, which no client owns. `Message.start` and
 * `Message.job` return it.
 */
export class Job<Result = any, Given = Callbacks> {
  constructor(base: URL, id: string, waiting: { count: number });
  /**
   * A text by which any page finds the job again. Keep it secret: it is enough to
   * watch the job, read its result and cancel it.
   */
  readonly id: string;
  /**
   * Wait for the end of the job, run callbacks meanwhile, and return the result.
   *
   * A callback gets the arguments with which the method has called it last, at once and then after
   * each change; arguments in between are skipped. Aborting the signal stops waiting, and not the
   * job. Rejects with the code "lost" if the gateway does not hold the job any more.
   */
  result(callbacks?: Given, options?: { signal?: AbortSignal }): Promise<Result>;
  /** Return the latest argument of each callback that the method has called, by its name. */
  progress(): Promise<Record<string, any>>;
  /** Cancel the job, and wait until its handler has ended. */
  cancel(): Promise<void>;
}

/** Calls a gateway's methods and runs their callbacks. */
export class Message extends EventTarget {
  /** Without a host, it calls the server that this module came from. */
  constructor(host?: string, port?: number | string, options?: MessageOptions);
  /** The URL of the gateway. */
  base: URL;
  readonly state: State;
  /** The gateway's id for this client; null while it has none. */
  readonly clientId: string | null;
  /** Connect, and stay connected until `close`. Rejects if the first attempt fails. */
  connect(): Promise<this>;
  /** Close the connection. Pending calls are cancelled and rejected with the code "closed". */
  close(): void;
  /**
   * Call a method, run its callbacks one after the other, and return its result.
   *
   * Without a connection, a call with callbacks opens one. A call without callbacks is then one
   * request, and aborting it hangs up. `data` must consist of JSON's own types: NaN, -0 or a Map,
   * for example, is a TypeError. A callback gets the arguments that the method passes. If a
   * callback throws, the method is told, and the call goes on.
   */
  post(
    method: string,
    data?: Record<string, any>,
    callbacks?: Callbacks,
    options?: PostOptions,
  ): Promise<any>;
  /**
   * Start a job: a call of a method marked with `@outlives`, which goes on when this page leaves.
   * Resolves once it has begun. After `timeoutMs` milliseconds the gateway cancels the job.
   */
  start(
    method: string,
    data?: Record<string, any>,
    options?: { timeoutMs?: number },
  ): Promise<Job>;
  /** Return the job with this id. Nothing is sent yet. */
  job(id: string): Job;
  /** GET a page of the same server, and return its JSON; null if the page is empty. */
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
