// @ts-check
/// <reference path="./message.d.ts" />
/**
 * The browser's client of a trio_rpc gateway. HTTP starts a call; a WebSocket carries its callbacks
 * and its end.
 *
 *     import { Message } from "/message.js";
 *     const message = new Message();
 *     await message.connect();
 *     const result = await message.post("scan", { folder: "/" }, { found: show });
 *
 * The same rules hold as for a call in Python. The call that `post` started has ended when its
 * promise is settled. Aborting it cancels the call, and the promise waits until the gateway
 * confirms that the call has ended. A lost connection is restored automatically, and missed
 * messages are delivered in order, once. If the gateway no longer knows this client, every pending
 * call is rejected with the code "lost".
 *
 * No dependencies. docs/gateway.md describes the messages.
 */

const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 10_000;
const HANDSHAKE = 10_000;
const ANSWER = 30_000;
const CANCEL_GRACE = 30_000;
const ACK_MESSAGES = 64;
/** Less than a gateway holds for each client, however much it holds for the others. */
const ACK_SIZE = 8 * 1024;
/** The most messages held for unanswered POSTs; a gateway holds fewer for one client. */
const MAX_HELD = 20_000;
/** The most characters of a message that arrives in pieces. A larger one fails its call. */
const MAX_WHOLE = 256 * 1024 * 1024;
/** Bytes of a message in addition to the value that it carries. */
const MARGIN = 1024;
/** Levels of arrays and objects in a value that a gateway reads. */
const MAX_DEPTH = 100;

/** Milliseconds after which a job's gateway that cannot be reached any more is given up. */
const OUTAGE = 60_000;
/** Seconds that one request waits for news of a job. */
const WAIT = 20;
/** The shortest time between two requests for a job's state: after one with news, and without. */
const PACE = 100;
const IDLE_PACE = 1000;
/**
 * The requests of one Message that wait at a time. A browser opens six connections to a server, for
 * all of its tabs together. The other jobs ask once a second.
 */
const MOST_WAITING = 1;

/** Keys of a callback message that are not callbacks. */
const ENVELOPE = new Set(["type", "request_uuid", "seq", "spread", "answer"]);
const RESERVED = new Set([
  ...["type", "request_uuid", "seq"],
  ...["uuid", "payload", "error", "code", "error_type"],
]);
/** WebSocket.OPEN, even where there is no WebSocket. */
const OPEN = 1;
const HERE = new URL(".", import.meta.url);

/** The longest time that setTimeout accepts; a longer one would end at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** Runs a function once, after a time of any length, unless it is stopped. */
class Timer {
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /**
   * @param {number} ms Infinity for never
   * @param {() => void} run
   */
  constructor(ms, run) {
    if (ms !== Infinity) this.#wait(Math.max(ms, 0), run);
  }

  /**
   * @param {number} left
   * @param {() => void} run
   */
  #wait(left, run) {
    const part = Math.min(left, LONGEST_TIMER);
    const over = () => (left > part ? this.#wait(left - part, run) : run());
    this.#timer = setTimeout(over, part);
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

/** The error that a call is rejected with; `code` says why. */
export class MessageError extends Error {
  /**
   * @param {string} code
   * @param {string} text
   * @param {{status?: number, parameter?: string, errorType?: string}} [more]
   */
  constructor(code, text, more = {}) {
    super(text);
    this.name = "MessageError";
    this.code = code;
    this.status = more.status ?? 0;
    this.parameter = more.parameter ?? "";
    this.errorType = more.errorType ?? "";
  }
}

/** One call, from the answer to its POST until its last message. */
class Call {
  /**
   * @param {Session} session
   * @param {string} request
   * @param {Record<string, (...args: any[]) => unknown>} callbacks
   */
  constructor(session, request, callbacks) {
    this.session = session;
    this.request = request;
    this.callbacks = callbacks;
    /** Bound: the window, which the gateway does not exceed. @type {any[]} */
    this.queue = [];
    this.next = 0;
    this.isRunning = false;
    /** @type {any} */
    this.end = null;
    this.handled = 0;
    this.reported = 0;
    /** @type {string | null} */
    this.cancelled = null;
    /** Whether some callbacks were not run, because the call had been cancelled. */
    this.isCut = false;
    /** @type {Map<string, string>} */
    this.errors = new Map();
    this.skipped = new Set();
    /**
     * Values of callbacks for which the handler waits, by number, with the name that failed.
     * Bound: the tasks of the handler that wait for one.
     * @type {Map<number, any>}
     */
    this.answers = new Map();
    /** @type {(end: any) => void} */
    this.settle = () => {};
    /** Resolves with the last message, once all callbacks before it have run. */
    this.done = new Promise((resolve) => {
      this.settle = resolve;
    });
  }

  /** @param {any} message */
  hear(message) {
    if (message.type !== "callback") {
      this.finish(message);
    } else if (this.cancelled !== null) {
      this.isCut = true;
      this.count();
    } else {
      this.queue.push(message);
      if (!this.isRunning) this.run();
    }
  }

  /** @param {any} end */
  finish(end) {
    this.end ??= end;
    this.session.forget(this);
    if (!this.isRunning) this.run();
  }

  async run() {
    this.isRunning = true;
    while (this.next < this.queue.length) {
      const message = this.queue[this.next++];
      const ticket = ticketOf(message.answer);
      for (const name of Object.keys(message)) {
        if (ENVELOPE.has(name)) continue;
        try {
          const callback = this.callback(name);
          let value = callback?.(...argumentsOf(message, name));
          if (value && typeof (/** @type {any} */ (value).then) === "function") value = await value;
          if (ticket) {
            if (!callback) throw new Error("post got no such callback");
            this.answer(ticket, value);
          }
        } catch (error) {
          console.warn(`trio_rpc: the callback ${name} failed`, error);
          if (ticket) {
            this.keep(ticket, { error: `${name}: ${shortText(error)}` });
          } else {
            this.errors.set(name, shortText(error));
            this.session.hasNews(this);
          }
        }
      }
      this.count();
      if (this.next >= this.queue.length) this.clear();
    }
    this.isRunning = false;
    if (this.end !== null) this.settle(this.end);
  }

  /**
   * Return a value to the handler that waits for it.
   * @param {number[]} ticket its number, and the lowest number for which a handler still waits
   * @param {unknown} value
   */
  answer(ticket, value) {
    const text = encoded(value === undefined ? null : value, MAX_DEPTH);
    const size = new TextEncoder().encode(text).length;
    if (size > this.session.maxMessage - MARGIN) {
      throw new TypeError(`its value is too large: ${size} bytes of JSON`);
    }
    this.keep(ticket, { value: JSON.parse(text) });
  }

  /**
   * @param {number[]} ticket
   * @param {{value: unknown} | {error: string}} outcome
   */
  keep([number, lowest], outcome) {
    for (const old of this.answers.keys()) if (old < lowest) this.answers.delete(old);
    this.answers.set(number, { type: "callback_result", answer: number, ...outcome });
    this.session.hasNews(this);
  }

  clear() {
    this.queue.length = 0;
    this.next = 0;
  }

  /** @param {string} name */
  callback(name) {
    if (Object.hasOwn(this.callbacks, name)) return this.callbacks[name];
    if (!this.skipped.has(name)) {
      this.skipped.add(name);
      console.warn(`trio_rpc: the gateway calls ${name}, but post got no such callback`);
    }
    return undefined;
  }

  count() {
    this.handled += 1;
    if (this.handled - this.reported >= Math.max(this.session.window / 4, 1)) {
      this.reported = this.handled;
      this.session.hasNews(this);
    }
  }

  /** @param {string} reason */
  cancel(reason) {
    if (this.cancelled !== null || this.end !== null) return;
    this.cancelled = reason;
    this.isCut = this.next < this.queue.length;
    this.handled += this.queue.length - this.next;
    this.clear();
    this.session.hasNews(this);
  }

  /** Return messages that describe the state of the call; they may repeat earlier ones. */
  state() {
    /** @type {any[]} */
    const messages = [...this.answers.values()];
    for (const [name, error] of this.errors) messages.push({ type: "callback_error", name, error });
    this.errors.clear();
    if (this.handled) messages.push({ type: "handled", count: this.handled });
    if (this.cancelled !== null) messages.push({ type: "cancel", reason: this.cancelled });
    return messages.map((message) => ({ ...message, request_uuid: this.request }));
  }
}

/** One identity of this client at the gateway, for as long as the gateway knows it. */
class Session {
  /**
   * @param {any} hello
   * @param {() => void} wake
   */
  constructor(hello, wake) {
    this.id = String(hello.uuid);
    this.token = String(hello.token ?? "");
    this.grace = milliseconds(hello.grace);
    this.keepalive = milliseconds(hello.keepalive) || Infinity;
    this.window = Number(hello.window) || 1000;
    this.maxMessage = Number(hello.max_message) || 65536;
    this.wake = wake;
    /** @type {{type: string, error: string} | null} */
    this.over = null;
    this.seen = 0;
    /** @type {Map<string, Call>} */
    this.calls = new Map();
    this.posting = 0;
    /** @type {Map<string, any[]>} */
    this.held = new Map();
    this.heldCount = 0;
    /**
     * The pieces of the message that is arriving, which continues over the next connection.
     * Bound: MAX_WHOLE.
     * @type {string[]}
     */
    this.pieces = [];
    this.piecesSize = 0;
    this.newMessages = 0;
    this.newSize = 0;
    /** @type {any[]} */
    this.aside = [];
    /**
     * Calls with news to send; null for a call without a caller, which is to be cancelled.
     * Bound: the calls, plus MAX_HELD.
     * @type {Map<string, Call | null>}
     */
    this.news = new Map();
  }

  /**
   * @param {string} request
   * @param {Record<string, (...args: any[]) => unknown>} callbacks
   */
  started(request, callbacks) {
    const call = new Call(this, request, callbacks);
    this.calls.set(request, call);
    const held = this.held.get(request) ?? [];
    this.held.delete(request);
    this.heldCount -= held.length;
    for (const message of held) call.hear(message);
    if (this.over !== null) call.finish(this.over); // it was lost meanwhile
    return call;
  }

  /** Record that a POST is over. After the last one, cancel the calls whose messages are held. */
  posted() {
    this.posting -= 1;
    if (this.posting) return;
    for (const request of this.held.keys()) this.disown(request);
    this.held.clear();
    this.heldCount = 0;
  }

  /** @param {Call} call */
  forget(call) {
    this.calls.delete(call.request);
    this.news.delete(call.request);
  }

  /**
   * Fail all calls, including calls that are being started.
   * @param {string} type
   * @param {string} error
   */
  fail(type, error) {
    this.over = { type, error };
    for (const call of [...this.calls.values()]) {
      call.clear();
      call.finish(this.over);
    }
  }

  /** @param {string} text Throws if it cannot come from a gateway. */
  hear(text) {
    const messages = JSON.parse(text);
    for (const message of Array.isArray(messages) ? messages : [messages]) {
      if (message !== null && typeof message === "object") this.hearOne(message);
    }
    this.newSize += text.length;
    if (this.hasAck()) this.wake();
  }

  /** @param {any} message */
  hearOne(message) {
    const { type, seq } = message;
    if (type === "ping") {
      this.aside = [{ type: "pong", id: message.id }];
      this.wake();
    }
    if (!Number.isInteger(seq) || seq <= this.seen) return;
    if (seq !== this.seen + 1) throw new Error(`message ${this.seen + 1} is missing`);
    this.seen = seq;
    this.newMessages += 1;
    if (type === "callback" || type === "finish" || type === "error") {
      this.deliver(String(message.request_uuid), message);
    } else if (type === "piece") {
      this.hearPiece(String(message.request_uuid), String(message.text), message.last === true);
    }
  }

  /**
   * @param {string} request
   * @param {string} text
   * @param {boolean} isLast
   */
  hearPiece(request, text, isLast) {
    this.pieces.push(text);
    this.piecesSize += text.length;
    const isTooLarge = this.piecesSize > MAX_WHOLE;
    if (isTooLarge) this.pieces = [];
    if (!isLast) return;
    const whole = this.pieces.join("");
    this.pieces = [];
    this.piecesSize = 0;
    if (!isTooLarge) {
      this.deliver(request, JSON.parse(whole));
      return;
    }
    const error = `the gateway sent a message of more than ${MAX_WHOLE} characters`;
    this.deliver(request, { type: "error", code: "internal", error });
    this.disown(request); // its handler still runs if the message was a callback
  }

  /**
   * @param {string} request
   * @param {any} message
   */
  deliver(request, message) {
    const call = this.calls.get(request);
    if (call) {
      call.hear(message);
    } else if (this.posting) {
      if (this.heldCount >= MAX_HELD) throw new Error("too many messages for unknown calls");
      const held = this.held.get(request);
      if (held) held.push(message);
      else this.held.set(request, [message]);
      this.heldCount += 1;
    } else if (message.type === "callback") {
      this.disown(request);
    }
  }

  /** @param {string} request No caller waits for it: the POST was abandoned or its answer lost. */
  disown(request) {
    if (this.news.size >= MAX_HELD) return;
    this.news.set(request, null);
    this.wake();
  }

  /** @param {Call} call */
  hasNews(call) {
    if (!this.calls.has(call.request)) return;
    this.news.set(call.request, call);
    this.wake();
  }

  hasAck() {
    return this.newMessages >= ACK_MESSAGES || this.newSize >= ACK_SIZE;
  }

  /** Queue the state of all calls again: the last connection may have lost messages. */
  resumed() {
    this.newMessages = this.newSize = 0;
    this.aside = [];
    for (const [request, call] of this.calls) this.news.set(request, call);
  }

  /** Take the messages that are to be sent now. */
  takeNews() {
    const messages = this.aside;
    this.aside = [];
    if (this.hasAck()) {
      messages.push({ type: "ack", seq: this.seen });
      this.newMessages = this.newSize = 0;
    }
    for (const [request, call] of this.news) {
      if (call) messages.push(...call.state());
      else messages.push({ type: "cancel", request_uuid: request, reason: "no caller waits for it" });
    }
    this.news.clear();
    return messages;
  }
}

/** A job: a call of a method marked with `@outlives`, which no client owns. */
export class Job {
  #url;
  #id;
  /** The number of requests of the Message that wait for news. @type {{count: number}} */ #waiting;
  #wasReached = false;

  /**
   * @param {URL} base the gateway's URL
   * @param {string} id
   * @param {{count: number}} waiting
   */
  constructor(base, id, waiting) {
    const [, uuid] = /^((?:[\w-]{1,64}~)?[0-9a-f-]{36})\.[\w-]{16,}$/.exec(id) ?? [];
    if (uuid === undefined) throw new TypeError(`not the id of a job: ${textOf(id).slice(0, 100)}`);
    this.#url = new URL(`api/result/${uuid}`, base);
    this.#id = id;
    this.#waiting = waiting;
  }

  get id() {
    return this.#id;
  }

  /**
   * Wait for the end of the job, run callbacks meanwhile, and return the result.
   * @param {Record<string, ((...args: any[]) => unknown) | undefined>} [callbacks]
   * @param {{signal?: AbortSignal}} [options]
   */
  async result(callbacks = {}, { signal } = {}) {
    const given = functions(callbacks);
    for (let seen = 0; ; ) {
      const began = Date.now();
      const state = await this.#ask("GET", { after: seen }, signal);
      if (state.type !== "running") return settled(state, undefined, Infinity);
      await runLatest(given, state);
      const pace = Number(state.news) > seen ? PACE : IDLE_PACE;
      seen = Number(state.news) || 0;
      await pause(began + pace - Date.now(), signal);
    }
  }

  /** Return the latest argument of each callback that the method has called. */
  async progress() {
    const state = await this.#ask("GET", { after: 0, wait: 0 });
    return state.callbacks ?? {};
  }

  /** Cancel the job, and wait until its handler has ended. */
  async cancel() {
    for (;;) {
      const began = Date.now();
      const state = await this.#ask("DELETE");
      if (state.type !== "running") return;
      await pause(began + IDLE_PACE - Date.now());
    }
  }

  /**
   * Ask for the state of the job. If the gateway was reached before, try for a while.
   * @param {string} method
   * @param {Record<string, number>} [query]
   * @param {AbortSignal} [signal]
   */
  async #ask(method, query = {}, signal) {
    const headers = { "Trio-Rpc-Token": this.#id.slice(this.#id.indexOf(".") + 1) };
    for (let failures = 1, giveUpAt = Infinity; ; failures += 1) {
      signal?.throwIfAborted();
      const wait = this.#waiting.count < MOST_WAITING ? WAIT : 0;
      const url = new URL(this.#url);
      for (const [name, value] of Object.entries({ wait, ...query })) {
        url.searchParams.set(name, String(value));
      }
      this.#waiting.count += 1;
      try {
        const state = stateOf(await exchange(url, { method, headers, signal }));
        this.#wasReached = true;
        return state;
      } catch (error) {
        if (signal?.aborted) throw signal.reason;
        const { code, status } = /** @type {MessageError} */ (error);
        giveUpAt = Math.min(giveUpAt, Date.now() + OUTAGE);
        const mayRepeat = this.#wasReached && (code === "unreachable" || status === 503);
        if (!mayRepeat || Date.now() >= giveUpAt) throw error;
      } finally {
        this.#waiting.count -= 1;
      }
      const longest = Math.min(FIRST_PAUSE * 2 ** failures, LONGEST_PAUSE);
      await pause(Math.random() * longest, signal);
    }
  }
}

/** Calls a gateway's methods and runs their callbacks. */
export class Message extends EventTarget {
  /** @type {Session | null} */ #session = null;
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {"closed" | "connecting" | "open"} */ #state = "closed";
  /** Calls over the connection. It is kept while there are any, and from `connect` to `close`. */
  #users = 0;
  #isKept = false;
  #attempts = 0;
  #lostAt = Infinity;
  /** @type {Timer | undefined} */ #retry;
  /** @type {Timer | undefined} */ #patience;
  /**
   * Bound: the calls that wait for a connection.
   * @type {{resolve: () => void, reject: (error: Error) => void}[]}
   */
  #waiting = [];
  #isWriting = false;
  /** Bound: the calls that are a single request. @type {Set<AbortController>} */
  #direct = new Set();
  #waitingForJobs = { count: 0 };

  /**
   * @param {string} [host] by default the server that this module came from
   * @param {number | string} [port]
   * @param {{path?: string, secure?: boolean}} [options]
   */
  constructor(host, port, { path, secure } = {}) {
    super();
    if (host === "" || host?.includes("/")) {
      throw new TypeError(
        `host must be a name or an address alone, not ${host}: port and path are separate arguments`,
      );
    }
    const isSecure = secure ?? HERE.protocol === "https:";
    const base = new URL(host === undefined ? HERE.href : `http://${host}`);
    base.protocol = isSecure ? "https:" : "http:";
    if (port !== undefined) base.port = String(port);
    if (path !== undefined) base.pathname = path;
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    this.base = base;
  }

  /**
   * Close when the page goes away. Registered only while there is a connection, because a page
   * keeps its listeners alive.
   * @param {Event} event
   */
  #onPageHide = (event) => {
    if (!(/** @type {PageTransitionEvent} */ (event).persisted)) this.close();
  };

  get state() {
    return this.#state;
  }

  get clientId() {
    return this.#session?.id ?? null;
  }

  /** Connect, and stay connected until `close`. */
  async connect() {
    const wasKept = this.#isKept;
    this.#isKept = true;
    try {
      await this.#open();
    } catch (error) {
      this.#isKept = wasKept;
      this.#closeIfUnused();
      throw error;
    }
    return this;
  }

  /** Close the connection. Pending calls are cancelled and rejected with the code "closed". */
  close() {
    this.#isKept = false;
    const socket = this.#socket;
    const session = this.#session;
    this.#session = null;
    this.#drop();
    this.#retry?.stop();
    if (socket?.readyState === OPEN) socket.send('{"type":"bye"}');
    socket?.close();
    session?.fail("closed", "this end has been closed");
    for (const call of this.#direct) {
      call.abort(new MessageError("closed", "this end has been closed"));
    }
    this.#tellWaiting(new MessageError("closed", "this end has been closed"));
    this.#change("closed");
  }

  /**
   * Call a method, run its callbacks one after the other, and return its result. Without callbacks
   * and without a connection, the call is a single request.
   *
   * @param {string} method
   * @param {Record<string, any>} [data]
   * @param {Record<string, ((...args: any[]) => unknown) | undefined>} [callbacks]
   * @param {{signal?: AbortSignal, timeoutMs?: number}} [options]
   */
  async post(method, data = {}, callbacks = {}, { signal, timeoutMs } = {}) {
    signal?.throwIfAborted();
    const body = encoded(data, MAX_DEPTH + 1);
    const given = functions(callbacks);
    const until = deadline(timeoutMs);
    if (this.#state === "closed" && !Object.keys(given).length) {
      return this.#alone(method, body, signal, until);
    }
    this.#users += 1;
    try {
      await abortable(this.#open(), signal, until);
      const session = /** @type {Session} */ (this.#session);
      session.posting += 1;
      let call;
      try {
        const request = await this.#start(session, method, body, Object.keys(given), until);
        call = session.started(request, given);
      } catch (error) {
        if (session.over) throw new MessageError(session.over.type, session.over.error);
        throw error;
      } finally {
        session.posted();
      }
      return await this.#follow(call, signal, until);
    } finally {
      this.#users -= 1;
      this.#closeIfUnused();
    }
  }

  /**
   * Start a job: a call that goes on when this page leaves. Resolves once it has begun.
   * @param {string} method the name of a method that is marked with `@outlives`
   * @param {Record<string, any>} [data]
   * @param {{timeoutMs?: number}} [options]
   */
  async start(method, data = {}, { timeoutMs } = {}) {
    const body = encoded(data, MAX_DEPTH + 1);
    /** @type {Record<string, string>} */
    const headers = {
      "Content-Type": "application/json",
      "Idempotency-Key": randomKey(),
      ...timeoutHeader(deadline(timeoutMs)),
    };
    const url = this.#url(`api/${encodeURIComponent(method)}?job=1`);
    const ask = () =>
      exchange(url, { method: "POST", headers, body, signal: AbortSignal.timeout(ANSWER) });
    const started = decoded(await ask().catch(ask)); // the same key cannot start a second job
    return this.job(`${started?.request_uuid}.${started?.token}`);
  }

  /**
   * Return the job with this id. Nothing is sent yet.
   * @param {string} id
   */
  job(id) {
    return new Job(this.base, id, this.#waitingForJobs);
  }

  /**
   * GET a page of the same server, and return its JSON; null if the page is empty.
   * @param {string} path
   * @param {Record<string, string | number | boolean | bigint | undefined>} [params]
   */
  get(path, params) {
    return this.#ask("GET", path, params);
  }

  /**
   * PUT JSON, and return the JSON of the answer.
   * @param {string} path
   * @param {any} [data]
   */
  put(path, data = null) {
    return this.#ask("PUT", path, undefined, encoded(data, MAX_DEPTH + 1));
  }

  /**
   * DELETE something, and return the JSON of the answer.
   * @param {string} path
   * @param {Record<string, string | number | boolean | bigint | undefined>} [params]
   */
  delete(path, params) {
    return this.#ask("DELETE", path, params);
  }

  /**
   * Call a method in a single request, without a connection. Hanging up cancels the call.
   * @param {string} method
   * @param {string} body
   * @param {AbortSignal | undefined} signal
   * @param {number} until
   */
  async #alone(method, body, signal, until) {
    const hangUp = new AbortController();
    this.#direct.add(hangUp);
    const onAbort = () => hangUp.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort);
    const patience = new Timer(until - Date.now(), () => hangUp.abort(tookTooLong()));
    /** @type {Record<string, string>} */
    const headers = { "Content-Type": "application/json", ...timeoutHeader(until) };
    const url = this.#url(`api/${encodeURIComponent(method)}`);
    try {
      const whole = await exchange(url, { method: "POST", headers, body, signal: hangUp.signal });
      return settled(ending(whole), undefined, until);
    } catch (error) {
      if (hangUp.signal.aborted) throw hangUp.signal.reason;
      throw error;
    } finally {
      this.#direct.delete(hangUp);
      patience.stop();
      signal?.removeEventListener("abort", onAbort);
    }
  }

  // ── calls ──────────────────────────────────────────────────────────────────────────────────

  /**
   * @param {Session} session
   * @param {string} method
   * @param {string} body
   * @param {string[]} names
   * @param {number} until
   * @returns {Promise<string>}
   */
  async #start(session, method, body, names, until) {
    const odd = names.find((name) => !/^[A-Za-z_]\w*$/.test(name));
    if (odd !== undefined) {
      const text = `${JSON.stringify(odd.slice(0, 100))} cannot be the name of a callback`;
      throw new MessageError("refused", text, { parameter: odd });
    }
    /** @type {Record<string, string>} */
    const headers = {
      "Content-Type": "application/json",
      "Trio-Rpc-Token": session.token,
      "Trio-Rpc-Callbacks": names.join(", "),
      "Idempotency-Key": randomKey(),
      ...timeoutHeader(until),
    };
    const url = this.#url(`api/${encodeURIComponent(method)}/${session.id}`);
    // It cannot be aborted: a request that is abandoned halfway could start a call that this end
    // does not know. The gateway answers it at once.
    const ask = () =>
      exchange(url, { method: "POST", headers, body, signal: AbortSignal.timeout(ANSWER) });
    const answer = await ask().catch(ask); // the same key cannot start a second call
    return String(decoded(answer).request_uuid);
  }

  /**
   * @param {Call} call
   * @param {AbortSignal | undefined} signal
   * @param {number} until
   */
  async #follow(call, signal, until) {
    // 1. Wait until the call has ended and its callbacks have run.
    // 2. If it is aborted or its time is over, cancel it. Then wait for its end for at most
    //    CANCEL_GRACE.
    // 3. If callbacks were not run because of that, throw the reason (law 3).
    // 4. Otherwise return the result, or throw the reason or the error of the call.
    /** @type {any} */
    let reason;
    /** @type {Timer | undefined} */
    let patience;
    /** @type {() => void} */
    let giveUp = () => {};
    const unconfirmed = new Promise((resolve) => {
      giveUp = () => resolve({ type: "unconfirmed" });
    });
    const cancel = (/** @type {any} */ why) => {
      if (reason !== undefined || call.end !== null) return;
      reason = why;
      call.cancel(shortText(messageOf(why)));
      patience?.stop();
      patience = new Timer(CANCEL_GRACE, giveUp);
    };
    const onAbort = () => cancel(signal?.reason);
    patience = new Timer(until - Date.now(), () => cancel(tookTooLong()));
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort);
    try {
      const end = await Promise.race([call.done, unconfirmed]);
      if (call.isCut && reason !== undefined) throw reason; // callbacks before its end were not run
      return settled(end, reason, until);
    } finally {
      patience.stop();
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /**
   * @param {string} verb
   * @param {string} path
   * @param {Record<string, string | number | boolean | bigint | undefined>} [params]
   * @param {string} [body]
   */
  async #ask(verb, path, params, body) {
    const url = this.#url(path.replace(/^\//, ""));
    for (const [name, value] of Object.entries(params ?? {})) {
      if (value === undefined) continue; // left out, as in JSON
      if (!["string", "number", "boolean", "bigint"].includes(typeof value)) {
        throw new TypeError(
          `the parameter ${name.slice(0, 100)} must be a text, a number or a boolean`,
        );
      }
      url.searchParams.set(name, String(value));
    }
    const headers = body === undefined ? undefined : { "Content-Type": "application/json" };
    return decoded(await exchange(url, { method: verb, headers, body }));
  }

  /** @param {string} path */
  #url(path) {
    return new URL(path, this.base);
  }

  // ── the connection ─────────────────────────────────────────────────────────────────────────

  /** Wait until the connection is open; rejects if an attempt fails. @returns {Promise<void>} */
  #open() {
    if (this.#state === "open") return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      if (this.#state === "closed") this.#connect();
    });
  }

  #connect() {
    this.#change("connecting");
    if (this.#state !== "connecting") return; // a listener has called close
    const query = this.#session ? "resume=1" : "resumable=1&pieces=1&answers=1";
    const url = this.#url(`ws?${query}`);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    /** @type {WebSocket} */
    let socket;
    try {
      socket = new WebSocket(url);
    } catch (error) {
      this.#failed(textOf(error)); // Node before 22 has none; a page's policy may forbid this one
      return;
    }
    this.#socket = socket;
    this.#watch(socket, HANDSHAKE);
    socket.onopen = () => {
      const session = this.#session;
      if (!session) return;
      const told = { uuid: session.id, token: session.token, seq: session.seen };
      socket.send(JSON.stringify({ type: "resume", ...told }));
    };
    socket.onmessage = (event) => this.#hear(socket, event.data);
    socket.onclose = (event) => {
      this.#broken(socket, `${event.code} ${event.reason || "the connection was lost"}`);
    };
  }

  /**
   * @param {WebSocket} socket
   * @param {any} text
   */
  #hear(socket, text) {
    try {
      if (this.#state === "open") this.#session?.hear(text);
      else this.#greet(socket, JSON.parse(text));
    } catch (error) {
      this.#broken(socket, String(error));
      return;
    }
    if (this.#socket !== socket) return;
    if (this.#session) this.#watch(socket, 2 * this.#session.keepalive);
  }

  /**
   * @param {WebSocket} socket
   * @param {any} first
   */
  #greet(socket, first) {
    if (!this.#session) {
      if (first?.type !== "uuid") throw new Error("the server is not a trio_rpc gateway");
      this.#session = new Session(first, () => this.#wake());
    } else if (first?.type === "resumed") {
      this.#session.resumed();
    } else {
      this.#drop();
      socket.close();
      this.#lose("the gateway does not know it any more");
      if (this.#state !== "connecting" || this.#socket) return; // a listener has called close
      if (this.#isKept || this.#waiting.length) this.#connect();
      else this.#change("closed", "session lost");
      return;
    }
    this.#socket = socket;
    this.#attempts = 0;
    this.#lostAt = Infinity;
    this.#change("open");
    this.#wake();
    this.#tellWaiting();
  }

  /**
   * End the connection after a silence of `patience` milliseconds.
   * @param {WebSocket} socket
   * @param {number} patience
   */
  #watch(socket, patience) {
    this.#patience?.stop();
    this.#patience = new Timer(patience, () => this.#broken(socket, "nothing was heard"));
  }

  /**
   * End a connection that is lost or silent, or an attempt that has failed.
   * @param {WebSocket} socket
   * @param {string} why
   */
  #broken(socket, why) {
    if (this.#socket !== socket) return;
    this.#drop();
    socket.close();
    this.#failed(why);
  }

  /**
   * Record that a connection has ended or an attempt has failed, and reconnect if necessary.
   * @param {string} why
   */
  #failed(why) {
    const wasOpen = this.#state === "open";
    const now = Date.now();
    if (wasOpen) this.#lostAt = now + (this.#session?.grace ?? 0);
    else if (this.#session && now >= this.#lostAt) {
      this.#lose(`the gateway could not be reached in time: ${why}`);
    }
    if (!wasOpen) {
      this.#attempts += 1;
      this.#tellWaiting(new MessageError("unreachable", `cannot connect: ${why}`));
    }
    if (!this.#isKept && !this.#session && !this.#waiting.length) {
      this.#change("closed", why);
      return;
    }
    this.#change("connecting", why);
    if (this.#state !== "connecting" || this.#socket) return; // a listener has called close
    const longest = Math.min(FIRST_PAUSE * 2 ** this.#attempts, LONGEST_PAUSE);
    this.#retry = new Timer(Math.random() * longest, () => this.#connect());
  }

  #closeIfUnused() {
    if (!this.#users && !this.#isKept && this.#state !== "closed") this.close();
  }

  #drop() {
    this.#patience?.stop();
    const socket = this.#socket;
    this.#socket = null;
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
  }

  /** @param {string} why */
  #lose(why) {
    const session = this.#session;
    this.#session = null;
    session?.fail("lost", `session lost: ${why}`);
    this.dispatchEvent(new CustomEvent("lost", { detail: { reason: why } }));
  }

  /** @param {Error} [error] */
  #tellWaiting(error) {
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      if (error) reject(error);
      else resolve();
    }
  }

  /**
   * @param {"closed" | "connecting" | "open"} state
   * @param {string} [reason]
   */
  #change(state, reason = "") {
    if (this.#state === state) return;
    if (state === "closed") globalThis.removeEventListener?.("pagehide", this.#onPageHide);
    else globalThis.addEventListener?.("pagehide", this.#onPageHide); // adding it twice is harmless
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, reason } }));
  }

  /** Send all news once the current task of the event loop is over. */
  #wake() {
    if (this.#isWriting) return;
    this.#isWriting = true;
    queueMicrotask(() => {
      this.#isWriting = false;
      const socket = this.#socket;
      if (this.#state !== "open" || socket?.readyState !== OPEN) return;
      for (const message of this.#session?.takeNews() ?? []) socket.send(JSON.stringify(message));
    });
  }
}

/**
 * @param {any} end
 * @param {any} reason why this end has cancelled the call, if it has
 * @param {number} until
 */
function settled(end, reason, until) {
  if (end.type === "finish") return result(end); // even if it was cancelled meanwhile
  const isExpected = end.code === "cancelled" || end.type !== "error";
  if (reason !== undefined && (isExpected || end.code === "deadline")) throw reason;
  if (end.code === "deadline" && until !== Infinity) {
    throw tookTooLong();
  }
  const code = end.type === "error" ? (end.code ?? "raised") : end.type;
  throw new MessageError(code, String(end.error), { errorType: end.error_type });
}

/**
 * Return the numbers by which a value is awaited; null if the handler awaits none.
 * @param {any} answer
 * @returns {number[] | null}
 */
function ticketOf(answer) {
  const isTicket = Array.isArray(answer) && answer.length === 2 && answer.every(Number.isInteger);
  return isTicket ? answer : null;
}

/**
 * Return a callback's arguments from a message. Its value is the one argument, or holds all
 * arguments if the message lists the callback as spread.
 * @param {any} message
 * @param {string} name
 * @returns {any[]}
 */
function argumentsOf(message, name) {
  const value = message[name];
  if (!Array.isArray(message.spread) || !message.spread.includes(name)) return [value];
  if (Array.isArray(value)) return value;
  return value === null ? [] : [value]; // named arguments arrive as one object
}

/**
 * Return the callbacks that are not undefined. Throws TypeError if one is not a function.
 * @param {Record<string, any>} callbacks
 * @returns {Record<string, (...args: any[]) => unknown>}
 */
function functions(callbacks) {
  const given = Object.entries(callbacks).filter(([, callback]) => callback !== undefined);
  const odd = given.find(([, callback]) => typeof callback !== "function");
  if (odd) throw new TypeError(`the callback ${odd[0].slice(0, 100)} is not a function`);
  return Object.fromEntries(given);
}

/**
 * Encode JSON, and refuse values that JSON.stringify would silently change, such as NaN or a Map,
 * and values that a gateway does not read.
 * @param {any} data
 * @param {number} most the levels of arrays and objects that it may have
 * @returns {string}
 */
function encoded(data, most) {
  if (isDeeper(data, most)) throw new TypeError(`a value is nested more than ${MAX_DEPTH} levels deep`);
  return JSON.stringify(data, function (key, value) {
    check(key, value, this);
    return value;
  });
}

/**
 * Tell whether a value has more than `most` levels, as every value that contains itself has.
 * @param {unknown} data
 * @param {number} most
 */
function isDeeper(data, most) {
  let level = [data];
  for (let depth = 0; depth <= most && level.length > 0; depth += 1) {
    const objects = level.filter((one) => typeof one === "object" && one !== null);
    level = [...new Set(objects)].flatMap((one) => Object.values(/** @type {object} */ (one)));
  }
  return level.length > 0;
}

/**
 * @param {string} key
 * @param {any} value the result of toJSON, if the original value has that method
 * @param {any} holder
 */
function check(key, value, holder) {
  const what = lost(value, holder[key], Array.isArray(holder));
  if (what) {
    throw new TypeError(`${what} cannot be sent as JSON${key && ` (${key.slice(0, 100)})`}`);
  }
  if (!isWellFormed(key)) throw new TypeError("a key with a lone surrogate cannot be sent as JSON");
}

/**
 * Describe a value of which JSON.stringify would lose something; "" if it would lose nothing.
 * @param {any} value
 * @param {any} original
 * @param {boolean} isInArray
 */
function lost(value, original, isInArray) {
  switch (typeof value) {
    case "number":
      return Object.is(value, -0) ? "-0" : Number.isFinite(value) ? "" : String(value);
    case "string":
      return isWellFormed(value) ? "" : "a text with a lone surrogate";
    case "undefined": // an undefined property is left out
      return isInArray || original !== undefined ? "undefined" : "";
    case "function":
    case "symbol":
      return `a ${typeof value}`;
    case "object": {
      if (value === null) return original === null ? "" : String(original); // an invalid Date
      const isShown = (/** @type {symbol} */ key) =>
        Object.prototype.propertyIsEnumerable.call(value, key);
      if (Object.getOwnPropertySymbols(value).some(isShown)) {
        return "an object with a symbol as a key";
      }
      if (Array.isArray(value)) {
        const hasMore = Object.keys(value).length > value.length; // missing items are undefined
        return hasMore ? "an array with other properties" : "";
      }
      const prototype = Object.getPrototypeOf(value);
      const isPlain = prototype === null || Object.hasOwn(prototype, "hasOwnProperty");
      return isPlain ? "" : `an object of the class ${value.constructor?.name}`;
    }
    default:
      return "";
  }
}

/** @param {string} text */
function isWellFormed(text) {
  return !/\p{Surrogate}/u.test(text);
}

/**
 * Convert a thrown value to a text that a message can carry.
 * @param {any} reason
 */
function shortText(reason) {
  return textOf(reason).slice(0, 1000).replace(/\p{Surrogate}/gu, "\ufffd");
}

/** @param {any} why */
function messageOf(why) {
  try {
    return why?.message ?? why;
  } catch {
    return why; // its `message` is a getter that throws
  }
}

/** @param {any} reason may have no prototype, or a `toString` that throws */
function textOf(reason) {
  try {
    return String(reason);
  } catch {
    return "something that has no text was thrown";
  }
}

/** @param {any} seconds null for no limit */
function milliseconds(seconds) {
  return seconds === null ? Infinity : 1000 * (Number(seconds) || 0);
}

/** @param {any} message */
function result(message) {
  if (Object.hasOwn(message, "payload")) return message.payload;
  const rest = Object.entries(message).filter(([name]) => !RESERVED.has(name));
  return rest.length ? Object.fromEntries(rest) : null;
}

/**
 * Make one request, and read its answer to the end.
 * @param {URL} url
 * @param {RequestInit} init
 */
async function exchange(url, init) {
  try {
    const answer = await fetch(url, init);
    // A server that refuses a large body may hang up before it was all sent. The status has come.
    const text = answer.ok ? await answer.text() : await answer.text().catch(() => "");
    return { answer, text };
  } catch (error) {
    throw new MessageError("unreachable", `no answer to a ${init.method}: ${error}`);
  }
}

/** @param {{answer: Response, text: string}} whole */
function decoded({ answer, text }) {
  /** @type {any} */
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    if (answer.ok) throw new MessageError("invalid", "the gateway's answer is not JSON");
  }
  if (answer.ok && !(body && typeof body === "object" && "error" in body)) return body;
  const details = body && typeof body === "object" ? body : {};
  const more = { status: answer.status, parameter: details.parameter };
  const code = answer.status === 410 ? "lost" : "refused";
  throw new MessageError(code, details.error ?? describeForeignRefusal(answer, text), more);
}

/**
 * Describe a refusal that no gateway wrote by its page, its status and its text.
 * @param {Response} answer
 * @param {string} text
 */
function describeForeignRefusal(answer, text) {
  const page = String(answer.url).replace(/\?.*/, "");
  const beginning = text.slice(0, 200).replace(/\s+/g, " ");
  return `${page} was answered ${answer.status}${beginning && `: ${beginning}`}`;
}

/**
 * Wait for a promise until the caller aborts or its time is over.
 * @param {Promise<void>} promise
 * @param {AbortSignal | undefined} signal
 * @param {number} until
 * @returns {Promise<void>}
 */
function abortable(promise, signal, until) {
  return new Promise((resolve, reject) => {
    const over = () => {
      patience.stop();
      signal?.removeEventListener("abort", onAbort);
    };
    const giveUp = (/** @type {any} */ why) => {
      over();
      reject(why);
    };
    const patience = new Timer(until - Date.now(), () => giveUp(tookTooLong()));
    const onAbort = () => giveUp(signal?.reason);
    signal?.addEventListener("abort", onAbort);
    promise.then(resolve, reject).finally(over);
  });
}

/**
 * Run the callbacks of a job that have new arguments. The job does not notice if one throws.
 * @param {Record<string, (...args: any[]) => unknown>} callbacks
 * @param {any} state
 */
async function runLatest(callbacks, state) {
  const latest = state.callbacks ?? {};
  for (const name of Object.keys(latest)) {
    if (!Object.hasOwn(callbacks, name)) continue;
    try {
      await callbacks[name](...argumentsOf({ [name]: latest[name], spread: state.spread }, name));
    } catch (error) {
      console.warn(`trio_rpc: the callback ${name} failed`, error);
    }
  }
}

/**
 * Return the message with the state of a job from an answer. Throws if it has none.
 * @param {{answer: Response, text: string}} whole
 */
function stateOf(whole) {
  const body = parsed(whole.text);
  if (["running", "finish", "error"].includes(body?.type)) return body;
  if (whole.answer.status === 404) {
    throw new MessageError("lost", "job lost: the gateway does not hold it", { status: 404 });
  }
  decoded(whole);
  throw new MessageError("invalid", "the gateway's answer has no state of a job");
}

/**
 * Wait for a time, or until the signal is aborted; then throw its reason.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      timer.stop();
      reject(signal?.reason);
    };
    const timer = new Timer(ms, () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    });
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort);
  });
}

/**
 * Return when a time limit is over, by Date.now(). Throws TypeError if it is not a number.
 * @param {unknown} timeoutMs
 */
function deadline(timeoutMs) {
  if (timeoutMs === undefined) return Infinity;
  if (typeof timeoutMs !== "number" || Number.isNaN(timeoutMs)) {
    throw new TypeError(`timeoutMs must be a number of milliseconds, not ${textOf(timeoutMs)}`);
  }
  return Date.now() + timeoutMs;
}

/** @param {number} until @returns {Record<string, string>} */
function timeoutHeader(until) {
  if (until === Infinity) return {};
  return { "Trio-Rpc-Timeout": String(Math.max(until - Date.now(), 0) / 1000) };
}

/**
 * Return the message that ended a call from the answer to its request. Throws if it has none.
 * @param {{answer: Response, text: string}} whole
 */
function ending(whole) {
  const body = parsed(whole.text);
  if (body?.type === "finish" || body?.type === "error") return body;
  decoded(whole);
  throw new MessageError("invalid", "the gateway's answer to the POST has no result");
}

/** @param {string} text @returns {any} */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function tookTooLong() {
  return new DOMException("the call took too long", "TimeoutError");
}

function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID requires a secure context
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
