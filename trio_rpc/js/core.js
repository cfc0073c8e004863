/**
 * One session: it joins a channel, the protocol and the calls of both ends.
 *
 *     opening --(both have sent Welcome)--> open --(a Goodbye)--> leaving --> ending --> over
 *
 * 1. The reader takes packets all the time, and never waits for the application (law 11). After each slice of
 *    time it lets the page have a turn.
 * 2. The writer alone sends. Messages that are queued in one turn of the event loop leave in one packet. A page
 *    that is unloaded cannot wait for the writer, and sends the rest itself.
 * 3. At the end, calls fail, handlers are stopped and awaited for `SHUTDOWN` ms, the last messages are
 *    written, and the channel is closed. `closed` resolves after that (law 6).
 */

import {
  abortReason, Fate, LocalProtocolError, Overloaded, Refused, RemoteProtocolError, SessionBroken, SessionClosed,
} from "./errors.js";
import { IncomingCalls } from "./incoming.js";
import { DISPOSE } from "./items.js";
import { Keepalive } from "./keepalive.js";
import { Notifications } from "./notifications.js";
import { Caller } from "./outgoing.js";
import { DEFAULT_LIMITS, ENDED, LEAVING, OPEN, Protocol } from "./protocol.js";
import { Timer, within } from "./timer.js";
import { turnIfLate } from "./turns.js";
import { readTypes } from "./types.js";

/** Milliseconds that handlers, and then the last packets, get when a session ends. */
const SHUTDOWN = 1000;
const CLOSED = "this end has closed the session";
/** Lines about errors that nobody awaits, in a minute. */
const REPORTS = 20;

export class Core {
  #channel;
  #options;
  #isWriting = false;
  #written = () => {};
  /** Calls that wait for credit or room, in order. Bound: the user's own calls. */
  #waiting = [];
  #roomWanted = [];
  #ending = null;
  #hungUp;
  #weLeftFirst = false;
  #isOpened = false;
  #opened;
  #closed;
  #leftToReport = REPORTS;
  #pings = new Map();
  events = new EventTarget();
  state = "connecting";

  constructor(channel, options) {
    this.#channel = channel;
    this.#options = options;
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.cancelGraceMs = options.cancelGraceMs ?? 30_000;
    this.protocol = new Protocol(limits, readTypes(options.types));
    this.facade = new Session(this);
    channel.onstate = (state) => this.#setState(state);
    const { services = {} } = options;
    this.calls = new IncomingCalls(this, typeof services === "function" ? services(this.facade) : services);
    this.notifications = new Notifications(this);
    this.refer = (id) => this.calls.refer(id);
    this.closed = new Promise((resolve) => {
      this.#closed = resolve;
    });
    this.keepalive = new Keepalive(options.keepaliveMs ?? 15_000, {
      ping: () => this.#isOpened && this.ping().catch(() => {}),
      renew: () => this.#channel.renew?.() ?? false,
      lost: () => this.#end(new SessionBroken("the other end is silent")),
    });
  }

  get isOver() {
    return this.#ending !== null;
  }

  /** Opens the session: resolves when both ends may call. */
  async open() {
    const opened = new Promise((resolve, reject) => {
      this.#opened = { resolve, reject };
    });
    const timer = new Timer(this.#options.handshakeTimeoutMs ?? 10_000, () =>
      this.#end(new Refused("the handshake took too long")));
    const { signal } = this.#options;
    if (signal?.aborted) throw abortReason(signal);
    signal?.addEventListener("abort", this);
    try {
      this.protocol.hello(this.#options.credentials, sessionPart());
      this.wake();
      this.#read();
      await opened;
    } catch (error) {
      await this.#end(error);
      throw error;
    } finally {
      timer.stop();
    }
  }

  /** The listener of the session's signal. */
  handleEvent(event) {
    this.#end(new SessionClosed("the session was aborted", { cause: abortReason(event.target) }));
  }

  // ── reading ──

  async #read() {
    try {
      for (let packet; (packet = await this.#channel.receive()) !== null; ) {
        this.keepalive.heard();
        if (!this.isOver) await this.#accept(packet); // later packets are dropped
      }
      const isOrderly = this.protocol.theirs === LEAVING || this.protocol.theirs === ENDED;
      const text = isOrderly ? "the other end has closed the session" : "the connection ended without a Goodbye";
      this.#end(new SessionBroken(text, { orderly: isOrderly }));
    } catch (error) {
      this.#end(new SessionBroken(`the session is lost: ${error.message}`, { cause: error }));
    } finally {
      this.#written();
    }
  }

  async #accept(packet) {
    try {
      for (const _ of this.protocol.receive(packet, this)) {
        const turn = turnIfLate();
        if (turn) await turn;
        if (this.isOver) break;
      }
      if (this.protocol.hasData) this.wake(); // a Pong, for instance
    } catch (error) {
      if (!(error instanceof RemoteProtocolError || error instanceof Refused)) throw error;
      this.#end(error);
    }
  }

  /** Tells the listeners of the session that the state of its connection has changed. */
  #setState(state) {
    if (state === this.state || !this.#isOpened) return;
    this.state = state;
    this.events.dispatchEvent(new CustomEvent("state", { detail: state }));
  }

  // ── events of the protocol ──

  hello(info) {
    this.#authenticate(info.credentials ?? null).catch((error) => {
      this.#end(error instanceof Refused ? error : new Refused("the credentials were not accepted", { cause: error }));
    });
  }

  async #authenticate(credentials) {
    const { authenticate } = this.#options;
    if (authenticate) await authenticate(credentials);
    if (this.#ending !== null) return;
    this.protocol.welcome();
    this.wake();
    this.#checkOpen();
  }

  welcome() {
    this.#checkOpen();
  }

  #checkOpen() {
    if (this.#isOpened || !this.protocol.isOpen) return;
    this.#isOpened = true;
    this.#setState("connected");
    this.#opened.resolve();
  }

  goodbye({ code, message }) {
    const text = message ? `${code}: ${message}` : code;
    if (this.protocol.theirs === ENDED || this.protocol.ours !== OPEN && this.protocol.ours !== LEAVING) {
      this.#end(new Refused(`the other end did not open the session: ${text}`));
    } else if (code === "protocol_error") {
      this.#end(new SessionBroken(`this end broke the protocol: ${message}`, { orderly: false }));
    } else {
      this.goodbyeText = text;
      this.#failWaiting();
      this.settle();
    }
  }

  request(request) {
    this.calls.request(request);
  }

  notification(message) {
    this.calls.notification(message);
  }

  cancel({ id, reason }) {
    const text = reason ?? "the call was cancelled by its caller";
    this.protocol.incoming.get(id)?.stop("cancelled", new DOMException(text, "AbortError"));
  }

  terminal(call, message) {
    call.end(message);
    this.#admitWaiting();
    this.settle();
  }

  item(call, { value, size, unreadable }) {
    if (unreadable) call.cancel(unreadable);
    else if (!call.isCancelling) call.items.add(value, size);
  }

  endOfItems(call) {
    if (!call.isCancelling) call.items.finish();
  }

  started(call, { value, unreadable }) {
    if (unreadable) call.cancel(unreadable);
    else call.onStarted?.(value);
  }

  credit(call) {
    call.rouse();
  }

  notificationCredit() {
    this.notifications.sendWaiting();
  }

  pong(number) {
    for (const [asked, { resolve }] of this.#pings) {
      if (asked > number) break;
      this.#pings.delete(asked);
      resolve();
    }
  }

  // ── calls ──

  /** Sends a call now, or when there is credit. A call within a call never waits (section 6). */
  admit(call) {
    const problem = this.problem(call.what.context);
    if (problem !== null) return call.fail(() => problem);
    if (!this.#waiting.length && this.#mayCall) return call.send();
    if (!this.protocol.hasCallCredit && call.what.context?.parent !== undefined) {
      return call.fail((fate) => new Overloaded("the other end allows no call now", { fate }));
    }
    this.#waiting.push(call);
  }

  get #mayCall() {
    return this.protocol.hasCallCredit && this.protocol.hasRoom;
  }

  /** Returns the error of a call from this context, or null if it may be made. */
  problem(context) {
    if (this.#ending !== null) return this.#error(Fate.NOT_STARTED);
    if (this.protocol.isOpen || this.protocol.incoming.has(context?.parent)) return null;
    if (!this.#isOpened) return new LocalProtocolError("the session is not open yet");
    return this.protocol.ours === LEAVING && this.#weLeftFirst
      ? new SessionClosed(CLOSED, { fate: Fate.NOT_STARTED })
      : new SessionBroken(`the other end is leaving: ${this.goodbyeText}`, { fate: Fate.NOT_STARTED, orderly: true });
  }

  #admitWaiting() {
    let count = 0;
    while (count < this.#waiting.length && this.#mayCall) this.#waiting[count++].send();
    if (count) this.#waiting.splice(0, count);
  }

  #failWaiting() {
    for (const call of this.#waiting.splice(0)) this.admit(call);
    this.notifications.sendWaiting();
  }

  forgetWaiting(call) {
    const index = this.#waiting.indexOf(call);
    if (index >= 0) this.#waiting.splice(index, 1);
    this.#admitWaiting(); // it may have been sent, and been withdrawn
    this.settle();
  }

  // ── writing ──

  wake() {
    if (this.#isWriting) return;
    this.#isWriting = true;
    queueMicrotask(() => this.#write());
  }

  async #write() {
    try {
      for (let packet; !this.#hungUp && (packet = this.protocol.nextPacket()) !== null; ) {
        const full = this.#channel.send(packet);
        if (full) await full;
        if (this.#waiting.length) this.#admitWaiting();
        if (this.#roomWanted.length && this.protocol.hasRoom) this.#giveRoom();
      }
    } catch {
      // The reader sees the end of the channel, and says why.
    }
    this.#isWriting = false;
    this.#written();
    this.notifications.sendWaiting();
    this.settle();
  }

  /** Resolves when everything that is queued now has been passed to the channel. */
  #flushed() {
    return new Promise((resolve) => {
      if (this.#isWriting) this.#written = resolve;
      else resolve();
    });
  }

  /** Resolves when the queue has room. */
  room() {
    return new Promise((resolve) => this.#roomWanted.push(resolve));
  }

  #giveRoom() {
    for (const resolve of this.#roomWanted.splice(0)) resolve();
  }

  async ping() {
    if (this.#ending !== null) throw this.#error(Fate.UNKNOWN);
    const began = performance.now();
    const number = this.protocol.ping();
    this.wake();
    await new Promise((resolve, reject) => this.#pings.set(number, { resolve, reject }));
    return performance.now() - began;
  }

  // ── the end ──

  /** Takes the next step of an orderly end, if it is due. */
  settle() {
    const { ours, theirs, outgoing, incoming } = this.protocol;
    if (this.#ending !== null || theirs !== LEAVING) return;
    if (ours === OPEN) {
      if (this.calls.notifications.size === 0) {
        this.protocol.goodbye("done", "answering a Goodbye");
        this.wake();
      }
    } else if (this.#weLeftFirst && outgoing.size === 0 && incoming.size === 0) {
      this.#end(new SessionClosed(CLOSED));
    }
  }

  /** Says Goodbye, lets calls in flight end for `graceMs`, then closes the channel. */
  async close({ reason = "", graceMs = 5000 } = {}) {
    if (graceMs > 0 && this.#ending === null && this.protocol.isOpen) {
      this.#weLeftFirst = true;
      this.protocol.goodbye("done", reason);
      this.wake();
      this.#failWaiting();
      await within(graceMs, this.closed);
    }
    await this.#end(new SessionClosed(CLOSED));
  }

  #error(fate) {
    const error = this.#ending.error;
    const { message, cause, constructor: Class } = error;
    const isEnd = error instanceof SessionBroken || error instanceof SessionClosed;
    if (isEnd) return new Class(message, { fate, cause, orderly: error.orderly });
    return new SessionBroken(message, { fate, cause: error });
  }

  #end(error) {
    if (this.#ending === null) {
      this.#ending = { error, promise: null };
      this.#ending.promise = this.#finish(error);
    }
    return this.#ending.promise;
  }

  async #finish(error) {
    this.#setState(error instanceof SessionClosed ? "closed" : "lost");
    this.#channel.onstate = () => {};
    this.keepalive.stop();
    this.#options.signal?.removeEventListener("abort", this);
    const pending = [...this.#waiting.splice(0), ...this.protocol.outgoing.values()];
    const stopped = this.calls.stop(this.#error(Fate.UNKNOWN));
    for (const call of pending) call.fail((fate) => this.#error(fate));
    for (const { reject } of this.#pings.values()) reject(this.#error(Fate.UNKNOWN));
    this.notifications.sendWaiting();
    this.#giveRoom();
    await within(SHUTDOWN, stopped);
    this.#sayGoodbye(error);
    await within(SHUTDOWN, this.#flushed());
    await this.#hangUp();
    if (!this.#isOpened) this.#opened?.reject(error);
    this.#closed({ error, orderly: error instanceof SessionClosed || error.orderly === true });
  }

  #sayGoodbye(error) {
    if (this.protocol.ours >= LEAVING || error instanceof SessionBroken) return;
    const code = error instanceof Refused ? "refused" : error instanceof RemoteProtocolError ? "protocol_error" : "done";
    this.protocol.goodbye(code, error.message);
    this.wake();
  }

  /** Closes the channel. Nothing is written after that, although handlers may still run. */
  #hangUp() {
    return (this.#hungUp ??= Promise.resolve(this.#channel.close()));
  }

  /**
   * Ends the session of a page that is unloaded. The page cannot wait for its functions, nor for room in the
   * channel, so everything is sent in this step. The functions end with the page, and their callers are told so.
   */
  leave() {
    if (this.#hungUp) return;
    this.#end(new SessionClosed(CLOSED));
    this.calls.abandon();
    this.#sayGoodbye(this.#ending.error);
    for (let packet; (packet = this.protocol.nextPacket()) !== null; ) this.#channel.send(packet);
    this.#hangUp();
  }

  /** Logs an error that nobody awaits: at most `REPORTS` a minute. */
  report(text, error) {
    if (this.#leftToReport === REPORTS) setTimeout(() => (this.#leftToReport = REPORTS), 60_000).unref?.();
    if (this.#leftToReport-- > 0) console.error(`trio_rpc: ${text}:`, error);
  }
}

/** A random part of the session's id, for the logs of both ends. It is not a secret. */
const sessionPart = () => Math.random().toString(36).padEnd(12, "0").slice(2, 12);

/** A session with another program. `await using` closes it. */
export class Session extends Caller {
  #core;

  constructor(core) {
    super({ session: core, signals: [], metadata: undefined, context: {} });
    this.#core = core;
  }

  /** Resolves with `{ error, orderly }` when the session is over and nothing of it runs any more. */
  get closed() {
    return this.#core.closed;
  }

  /** "connected", "reconnecting", "resumed", "closed" (by this end) or "lost". */
  get state() {
    return this.#core.state;
  }

  /** Listens to "state": an event whose `detail` is the new state. */
  addEventListener(...of) {
    this.#core.events.addEventListener(...of);
  }

  removeEventListener(...of) {
    this.#core.events.removeEventListener(...of);
  }

  /** Whether calls can be made. */
  get isOpen() {
    return this.#core.problem(null) === null;
  }

  /** The number of calls in flight, of both ends. */
  get statistics() {
    const { outgoing, incoming } = this.#core.protocol;
    return { callsOut: outgoing.size, callsIn: incoming.size };
  }

  /** Waits for an answer of the other end, and resolves with the milliseconds that it took. */
  ping() {
    return this.#core.ping();
  }

  /** Says Goodbye, lets calls in flight end for `graceMs` (5,000), and closes the session. */
  close(options) {
    return this.#core.close(options);
  }

  [DISPOSE]() {
    return this.close();
  }
}

/** Opens a session over a channel. A page that is left says Goodbye, so that nothing waits for its return. */
export async function openSession(channel, options = {}) {
  const core = new Core(channel, options);
  await core.open();
  const leave = (event) => event.persisted || core.leave();
  globalThis.addEventListener?.("pagehide", leave);
  core.closed.then(() => globalThis.removeEventListener?.("pagehide", leave));
  return core.facade;
}
