/** The calls that this end makes. */

import { abortReason, Fate, LocalProtocolError, RpcError } from "./errors.js";
import { fromMap, messageOf } from "./error_maps.js";
import { DISPOSE, ItemStream } from "./items.js";
import { Window } from "./protocol.js";
import { Timer } from "./timer.js";
import { Reference } from "./values.js";

/** The first credit of a stream. */
const CREDIT = [1024, 1024 * 1024];

/**
 * One call, from the user's `call()` until the other end's handler has ended.
 *
 *     waiting for credit --> sent --(Cancel)--> cancelling --> settled
 *
 * 1. An abort before the Request has left withdraws it; nothing has been sent, and it settles.
 * 2. An abort after that sends Cancel once. The call settles when the terminal message is there: with
 *    its result, if the handler has returned one all the same (law 3), otherwise with the reason.
 * 3. The functions and streams of its arguments belong to the call. They are stopped by its Cancel, and
 *    by its terminal message, and the call settles when they have ended.
 */
export class OutgoingCall {
  #session;
  #signals;
  #timer;
  #options;
  #resolve;
  #reject;
  #isSettled = false;
  /** Whether Cancel is sent. */
  isCancelling = false;
  id = 0;
  /** Set while Items may arrive. */
  window = null;
  awaitsStarted = false;
  reason;
  /** @type {Map<number, {kind: number, target: any, isBusy?: boolean, iterator?: any}>} */
  references = new Map();
  /** The running calls of these references. */
  callbacks = new Set();
  /** @type {ItemStream | null} */
  items = null;
  onStarted = null;

  /**
   * @param {import("./core.js").Session} session
   * @param {object} what `method`, `args`, `kwargs`, `context`
   * @param {object} options `signals`, `timeoutMs`, `abandonOnAbort`, and `scope`: the scope's call
   */
  constructor(session, what, options) {
    this.#session = session;
    this.what = what;
    this.#options = options;
    this.#signals = options.signals;
    this.settled = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  begin() {
    const aborted = this.#signals.find((signal) => signal.aborted);
    if (aborted !== undefined) return this.#settle(abortReason(aborted));
    for (const signal of this.#signals) signal.addEventListener("abort", this);
    const { timeoutMs = Infinity } = this.#options;
    if (timeoutMs !== Infinity) this.#timer = new Timer(timeoutMs, () => this.cancel(timedOut(timeoutMs)));
    this.#session.admit(this);
  }

  /** The listener of its signals. @param {Event} event */
  handleEvent(event) {
    this.cancel(abortReason(event.target));
  }

  /** Sends the Request; called by the session when there is credit. */
  send() {
    const { method, args, kwargs } = this.what;
    const { scope } = this.#options;
    const context = scope ? { ...this.what.context, scope: scope.id } : this.what.context;
    const owner = scope ?? this;
    const made = [];
    const refer = (target) => {
      const kind = typeof target === "function" ? 1 : isStream(target) ? 2 : 0;
      if (kind === 0) return null;
      const number = owner.references.size;
      owner.references.set(number, { kind, target });
      made.push(number);
      return new Reference(kind, number);
    };
    try {
      if (context?.stream) this.window = new Window(context.stream);
      this.awaitsStarted = context?.task_status === true;
      this.id = this.#session.protocol.request(this, method, args, kwargs, context, refer);
      this.#session.wake();
    } catch (error) {
      made.forEach((number) => owner.references.delete(number));
      this.#settle(error);
    }
  }

  /** Cancels the call, and lets it settle with that reason once its handler has ended. */
  cancel(reason) {
    if (this.#isSettled || this.isCancelling) return;
    this.reason = reason;
    if (this.id === 0 || this.#session.protocol.withdraw(this.id)) {
      this.#session.forgetWaiting(this);
      this.#settle(reason);
      return;
    }
    this.isCancelling = true;
    this.#timer?.stop();
    this.items?.drop();
    this.#session.protocol.cancel(this.id, messageOf(reason));
    this.#session.wake();
    for (const callback of this.callbacks) callback.stop("cancelled", reason);
    if (this.#options.abandonOnAbort) this.#settle(reason);
    else this.#timer = new Timer(this.#session.cancelGraceMs, () => this.#settle(reason));
  }

  /** Ends the call with its terminal message. */
  async end(message) {
    if (this.callbacks.size) await this.#endCallbacks();
    if (message.unreadable) return this.#settle(message.unreadable);
    if (message.error === undefined) return this.#settle(undefined, message.result);
    const { code } = message.error;
    const isOurs = code === "cancelled" || code === "deadline";
    if (isOurs && this.reason !== undefined) return this.#settle(this.reason);
    const { timeoutMs } = this.#options;
    if (code === "deadline" && timeoutMs !== undefined) return this.#settle(timedOut(timeoutMs));
    this.#settle(fromMap(message.error));
  }

  async #endCallbacks() {
    const running = [...this.callbacks];
    const over = new LocalProtocolError("the call of this callback has ended");
    for (const callback of running) callback.stop("cancelled", over);
    await Promise.all(running.map((callback) => callback.ended));
  }

  /** Fails the call, because the session is over. */
  fail(makeError) {
    this.#settle(makeError(this.id === 0 ? Fate.NOT_STARTED : Fate.UNKNOWN));
  }

  #settle(error, result) {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#timer?.stop();
    for (const signal of this.#signals) signal.removeEventListener("abort", this);
    if (error !== undefined) this.#reject(error);
    else this.#resolve(result);
  }

  /** Gives credit for items that the user has taken, once they are half of the first credit. */
  giveCredit({ items, bytes }) {
    const { window } = this;
    if (window === null || this.isCancelling) return false;
    if (items < window.mostItems / 2 && bytes < window.mostBytes / 2) return false;
    window.give(items, bytes);
    this.#session.protocol.credit(this.id, items, bytes);
    this.#session.wake();
    return true;
  }
}

function timedOut(ms) {
  return new DOMException(`the call took longer than ${ms} ms`, "TimeoutError");
}

function isStream(target) {
  return typeof target[Symbol.asyncIterator] === "function" || typeof target.getReader === "function" ||
    (typeof target.next === "function" && typeof target[Symbol.iterator] === "function");
}

/**
 * Makes calls from one place: a session, a handler, or a remote scope. All of them are structured:
 * a call that a handler makes is cancelled when that handler ends.
 */
export class Caller {
  #place;

  /**
   * @param {object} place `session`; `signals`; `context`: the entries that all of its calls have;
   *   `deadline()`: milliseconds left; `scope`: the call of a remote scope; `add`: told of each call
   */
  constructor(place) {
    this.#place = place;
  }

  /** Returns the fields of the Request, and the milliseconds that the call may take. */
  #describe(method, args, options, context) {
    const place = this.#place;
    if (!Array.isArray(args)) throw new TypeError("args is not an array");
    const timeoutMs = Math.min(options.timeoutMs ?? Infinity, place.deadline?.() ?? Infinity);
    if (timeoutMs !== timeoutMs) throw new TypeError("timeoutMs is not a number");
    const entries = { ...place.context, ...context };
    if (timeoutMs !== Infinity) {
      Object.assign(entries, { deadline: Math.max(timeoutMs, 0) / 1000, sent: performance.now() / 1000 });
    }
    const metadata = { ...place.metadata, ...options.metadata };
    if (Object.keys(metadata).length) entries.metadata = metadata;
    const last = args.at(-1);
    const kwargs = last instanceof Named ? last.values : options.kwargs;
    const hasContext = place.scope !== undefined || Object.keys(entries).length > 0;
    return {
      method,
      args: (last instanceof Named ? args.slice(0, -1) : args).map((value) => (value === undefined ? null : value)),
      kwargs: kwargs ?? (hasContext ? {} : null),
      context: hasContext ? entries : null,
      timeoutMs,
    };
  }

  #make(method, args, options, context = {}) {
    const { session, signals, scope, add } = this.#place;
    const { timeoutMs, ...what } = this.#describe(method, args, options, context);
    const call = new OutgoingCall(session, what, {
      scope,
      signals: options.signal ? [...signals, options.signal] : signals,
      abandonOnAbort: options.abandonOnAbort,
      timeoutMs: timeoutMs === Infinity ? undefined : timeoutMs,
    });
    add?.(call);
    return call;
  }

  /** Calls a method, and returns a promise of its result. */
  call(method, args = [], options = {}) {
    try {
      const call = this.#make(method, args, options);
      call.begin();
      return call.settled;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Returns the items of a stream. The call is made when the first item is requested. */
  stream(method, args = [], options = {}) {
    return new ItemStream((items) => this.open(items, method, args, options));
  }

  /** Makes the call of a stream whose items an ItemStream takes. */
  open(items, method, args = [], options = {}) {
    const call = this.#make(method, args, options, { stream: options.credit ?? CREDIT });
    call.items = items;
    call.begin();
    return call;
  }

  /** Opens a duplex: a pair of Web Streams, and `ended`, a promise of the end of the call. */
  duplex(method, args = [], options = {}) {
    const { readable: outgoing, writable } = new TransformStream();
    const items = this.stream(method, [outgoing, ...args], options);
    const call = items.begin();
    const drop = () => outgoing.cancel().catch(() => {}); // nobody pulls it any more
    call.settled.then(drop, drop);
    return { readable: readableOf(items), writable, ended: call.settled, close: () => items.return() };
  }

  /** Calls a method that reports its start. Resolves with `value`, and `ended`, a promise. */
  async start(method, args = [], options = {}) {
    const call = this.#make(method, args, options, { task_status: true });
    return new Promise((resolve, reject) => {
      call.onStarted = (value) => resolve({ value, ended: call.settled });
      call.settled.then(() => reject(call.reason ?? new RpcError(`${method} has not started`)), reject);
      call.begin();
    });
  }

  /** Sends a notification; resolves when it is on its way. Its outcome is not reported. */
  async notify(method, args = [], options = {}) {
    await this.#place.session.notifications.send(this.#describe(method, args, options, {}), options.signal);
  }

  /** Returns an object whose methods are those of a service of the other end. */
  proxy(service = "", options = {}) {
    return makeProxy(this, service, options);
  }

  /** Opens a remote scope: the calls in it end, at the latest, when the scope is closed. */
  openScope(options = {}) {
    const call = this.#make("trio_rpc.scope", [], options);
    call.begin();
    return new RemoteScope(this.#place, call);
  }
}

/** A remote scope; `await using` closes it. */
export class RemoteScope extends Caller {
  #call;

  constructor(place, call) {
    super({ ...place, scope: call });
    this.#call = call;
    call.settled.catch(() => {}); // it fails with its session, whose calls report that
  }

  /** Cancels all calls in the scope, and waits until they have ended. */
  async close() {
    this.#call.cancel(new DOMException("the scope was left", "AbortError"));
    await this.#call.settled.catch((error) => {
      if (error !== this.#call.reason) throw error; // its own signal may have cancelled it before
    });
  }

  /** Rejects when the scope ends by itself, for instance because a task in it has failed. */
  get ended() {
    return this.#call.settled;
  }

  [DISPOSE]() {
    return this.close();
  }
}

class Named {
  constructor(values) {
    this.values = values;
  }
}

/** Arguments by name, as the last argument: `market.order("BTC", named({ amount: 2 }))`. */
export const named = (values) => new Named(values);

export function readableOf(items) {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await items.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: () => items.return(),
  }, { highWaterMark: 0 });
}

function makeProxy(caller, service, shared) {
  const methods = new Map();
  return new Proxy(Object.create(null), {
    get(_, name) {
      // A proxy is awaited, shown and turned into JSON like any object.
      if (typeof name !== "string" || name === "then" || name === "toJSON") return undefined;
      if (!methods.has(name)) methods.set(name, proxied(caller, service ? `${service}.${name}` : name, shared));
      return methods.get(name);
    },
  });
}

function proxied(caller, name, shared) {
  const method = (...args) => new ProxiedCall(caller, name, args, shared);
  return Object.assign(method, {
    stream: (...args) => caller.stream(name, args, shared),
    duplex: (...args) => caller.duplex(name, args, shared),
    start: (...args) => caller.start(name, args, shared),
    notify: (...args) => caller.notify(name, args, shared),
  });
}

/**
 * A call through a proxy, which cannot know of which kind the method is. `for await` makes it the
 * call of a stream. Everything else makes it the call of a method, which is sent at the latest when
 * the running function returns to the event loop.
 */
class ProxiedCall {
  #promise = null;
  #isStream = false;
  #make;
  #open;

  constructor(caller, name, args, options) {
    this.#make = () => caller.call(name, args, options);
    this.#open = () => caller.stream(name, args, options);
    queueMicrotask(() => {
      if (!this.#isStream) this.#called();
    });
  }

  #called() {
    if (this.#isStream) throw new TypeError("a stream cannot be awaited");
    return (this.#promise ??= this.#make());
  }

  then(fulfilled, rejected) {
    return this.#called().then(fulfilled, rejected);
  }

  catch(rejected) {
    return this.#called().catch(rejected);
  }

  finally(then) {
    return this.#called().finally(then);
  }

  [Symbol.asyncIterator]() {
    if (this.#promise !== null) {
      throw new TypeError("called as a method: use proxy.method.stream()");
    }
    this.#isStream = true;
    return this.#open()[Symbol.asyncIterator]();
  }

  get [Symbol.toStringTag]() {
    return "Promise";
  }
}

