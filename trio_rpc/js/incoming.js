/** The calls and notifications that this end serves. */

import { LocalProtocolError } from "./errors.js";
import { invalidArguments, messageOf, toMap } from "./error_maps.js";
import { ItemStream, iteratorOf, sendItems } from "./items.js";
import { Caller, readableOf } from "./outgoing.js";
import { forPeople, Window } from "./protocol.js";
import { buildTable, DUPLEX, entryOf, NOTIFICATION, STREAM } from "./services.js";
import { Timer } from "./timer.js";
import { Reference } from "./values.js";

/** The errors by which a stopped handler ends: its own signal, or that of a call that it waited for. */
const STOPS = new Set(["AbortError", "TimeoutError", "SessionBroken", "SessionClosed"]);

/** A handler's view of its call. Calls that it makes here are within that call. */
export class Call extends Caller {
  #incoming;

  constructor(incoming) {
    super(incoming.place());
    this.#incoming = incoming;
  }

  get session() {
    return this.#incoming.session.facade;
  }

  get method() {
    return this.#incoming.request.method;
  }

  /** Aborted when the caller cancels, its deadline passes, or the session ends. */
  get signal() {
    return this.#incoming.signal;
  }

  get metadata() {
    return this.#incoming.request.context.metadata ?? {};
  }

  /** The milliseconds that are left, or Infinity. */
  get timeLeft() {
    return this.#incoming.timeLeft();
  }

  /** Reports that a `startable` method is ready. */
  started(value) {
    this.#incoming.started(value);
  }
}

/**
 * A call that the other end has made, or a notification (without an id).
 *
 * Its handler begins at once, in the order of arrival (law 9). When it has ended, the calls that it
 * has made and not awaited are cancelled, and only then is the terminal message sent (laws 1 and 4).
 */
export class IncomingCall {
  #controller = null;
  #timer = null;
  #due = Infinity;
  #children = new Set();
  #wake = null;
  #resolveEnded;
  #hasEnded = false;
  isStopped = false;
  stopCode = "";
  reason;
  window = null;
  awaitsStarted = false;
  /** The calls that are made in this one, if it is a scope. */
  members = null;
  /** Closes the source of the items, if it is a stream. */
  close = null;

  constructor(session, request) {
    this.session = session;
    this.request = request;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    const { deadline, stream, task_status: isAwaited } = request.context;
    if (stream) this.window = new Window(stream);
    this.awaitsStarted = isAwaited === true;
    if (deadline !== undefined) {
      this.#due = performance.now() + deadline * 1000;
      const passed = new DOMException("the deadline has passed", "TimeoutError");
      this.#timer = new Timer(deadline * 1000, () => this.stop("deadline", passed));
    }
  }

  get signal() {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.isStopped) this.#controller.abort(this.reason);
    }
    return this.#controller.signal;
  }

  timeLeft() {
    return this.#due === Infinity ? Infinity : Math.max(0, this.#due - performance.now());
  }

  /** The place from which the handler calls. */
  place() {
    const { context } = this.request;
    return {
      session: this.session,
      signals: [this.signal],
      context: { depth: (context.depth ?? 0) + 1, ...(this.request.id ? { parent: this.request.id } : {}) },
      metadata: context.metadata,
      deadline: () => this.timeLeft(),
      add: (call) => this.add(call),
    };
  }

  /** Makes calls of the function or the stream of that number, which came with this call or its scope. */
  borrowed(number) {
    const { scope } = this.request.context;
    const owner = scope === undefined ? this : this.session.protocol.incoming.get(scope);
    if (!owner || owner.#hasEnded) throw new LocalProtocolError("the call of this callback has ended");
    const place = (this.#hasEnded ? owner : this).place();
    const context = { ...place.context, parent: owner.request.id, callback: number };
    return new Caller({ ...place, context, signals: [...place.signals, owner.signal] });
  }

  add(call) {
    this.#children.add(call);
    const remove = () => this.#children.delete(call);
    call.settled.then(remove, remove);
  }

  // ── running ──

  /**
   * Runs the handler. An error that it throws is its answer; none reaches the reader.
   * @param {object} entry of the table, or of a callback
   * @param {(() => object) | null} getIterator gets the iterator of a stream that is pulled
   */
  run(entry, getIterator = null) {
    let [args, result, isPromise] = [[], null, false];
    try {
      if (!entry.isScope) args = entry.bind(this.request.args, this.request.kwargs);
    } catch (error) {
      return this.refuse(invalidArguments(error));
    }
    try {
      result = this.#invoke(entry, args, getIterator);
      isPromise = typeof result?.then === "function";
    } catch (error) {
      this.#finish(true, error);
      return;
    }
    if (isPromise) {
      Promise.resolve(result).then((value) => this.#finish(false, value), (error) => this.#finish(true, error));
    } else {
      this.#finish(false, result);
    }
  }

  #invoke(entry, args, getIterator) {
    if (entry.isScope) return this.#holdScope();
    if (getIterator !== null) return sendItems(this, getIterator());
    const run = (...given) => (entry.takesCall ? entry.run(new Call(this), ...given) : entry.run(...given));
    if (entry.kind === DUPLEX) return this.#runDuplex(run, args);
    if (entry.kind !== STREAM) return run(...args);
    const source = run(...args);
    if (typeof source?.then !== "function") return sendItems(this, iteratorOf(source));
    return source.then((found) => sendItems(this, iteratorOf(found)));
  }

  async #holdScope() {
    this.members = new Set();
    await new Promise((resolve) => {
      this.#wake = resolve;
    });
    await Promise.all([...this.members].map((call) => call.ended));
    throw this.reason;
  }

  async #runDuplex(run, [incoming, ...args]) {
    const writable = new WritableStream({
      write: async (value) => {
        while (!this.mayPass && !this.isStopped) await this.wait();
        if (this.isStopped) throw this.reason;
        this.item(value);
      },
      close: () => {
        this.window = null;
        this.session.protocol.endOfItems(this.request.id);
        this.session.wake();
      },
    });
    await run({ readable: readableOf(incoming), writable }, ...args);
  }

  get mayPass() {
    return this.window.isOpen && this.session.protocol.hasRoom;
  }

  /** Waits for credit, for room in the queue, or until the call is stopped. */
  async wait() {
    if (!this.session.protocol.hasRoom) return this.session.room();
    await new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  rouse() {
    this.#wake?.();
  }

  item(value) {
    this.session.protocol.item(this.request.id, this.window, value);
    this.session.wake();
  }

  started(value = null) {
    if (!this.awaitsStarted) return; // the caller does not wait for it
    this.awaitsStarted = false;
    this.#timer?.stop();
    this.#due = Infinity;
    this.session.protocol.started(this.request.id, value);
    this.session.wake();
  }

  // ── its end ──

  /** Tells the handler to stop. @param {string} code of the error that its caller then gets */
  stop(code, reason) {
    if (this.isStopped || this.#hasEnded) return;
    Object.assign(this, { isStopped: true, stopCode: code, reason });
    this.#controller?.abort(reason);
    for (const member of this.members ?? []) member.stop(code, reason);
    this.close?.().catch(() => {}); // `sendItems` gets the same error
    this.rouse();
  }

  async #finish(isFailed, value) {
    this.#timer?.stop();
    if (this.#children.size) await this.#endChildren();
    this.#end(() => this.session.calls.answer(this, isFailed, value));
  }

  /** Answers a call whose handler has not begun, or is abandoned. */
  refuse(map) {
    this.#end(() => this.session.calls.answerWith(this, map));
  }

  #end(answer) {
    if (this.#hasEnded) return; // it was abandoned, or its answer waits for room
    this.#timer?.stop();
    this.#hasEnded = true;
    answer();
    this.#resolveEnded();
  }

  async #endChildren() {
    const over = new LocalProtocolError("its handler has ended");
    const children = [...this.#children];
    for (const child of children) child.cancel(over);
    // Streams that were pulled are not awaited: their source belongs to the caller of this call.
    const awaited = children.filter((child) => !(child.items && child.what.context.callback !== undefined));
    await Promise.all(awaited.map((child) => child.settled.catch(() => {})));
  }

  isStop(error) {
    return this.isStopped && (error === this.reason || STOPS.has(error?.name));
  }
}

const misfit = (text) => ["invalid_arguments", text];
const notReadable = (error) => misfit(`unreadable: ${messageOf(error)}`);

/** All calls and notifications of the other end, from their arrival until they are answered. */
export class IncomingCalls {
  #session;
  #table;
  #holder = null;
  /** Bound: the notifications that Hello grants. */
  notifications = new Set();

  constructor(session, services) {
    this.#session = session;
    this.#table = buildTable(services);
  }

  /** Returns a function that makes the functions and streams that stand for the references of a Request. */
  refer(id) {
    const holder = (this.#holder = { id, call: null });
    return (kind, number) => {
      if (kind === 1) return async (...args) => holder.call.borrowed(number).call(holder.call.request.method, args);
      if (kind !== 2) return new Reference(kind, number);
      return new ItemStream((items) => holder.call.borrowed(number).open(items, holder.call.request.method));
    };
  }

  request(request) {
    const { id, context } = request;
    const call = new IncomingCall(this.#session, request);
    this.#session.protocol.incoming.set(id, call);
    if (this.#holder?.id === id) this.#holder.call = call;
    const refusal = context.callback === undefined ? this.#runMethod(call) : this.#runCallback(call);
    if (refusal === null) return;
    const [code, message, more] = refusal;
    call.refuse({ code, message, ...more });
  }

  /** Runs a method of the table, or returns code and text of the error that refuses it. */
  #runMethod(call) {
    const { method, context, args, kwargs, unreadable } = call.request;
    const entry = this.#table.get(method);
    const isOpened = entry?.kind === STREAM || entry?.kind === DUPLEX;
    if (entry === undefined || entry.kind === NOTIFICATION || isOpened !== (context.stream !== undefined)) {
      return ["method_not_found", `there is no ${context.stream ? "stream" : "method"} '${method}'`];
    }
    if (unreadable) return notReadable(unreadable);
    if (context.task_status && !entry.isStartable) return misfit("it has no task_status");
    if (entry.isScope && (args.length || Object.keys(kwargs ?? {}).length)) {
      return misfit("a scope has no arguments");
    }
    if (entry.kind === DUPLEX && !(args[0] instanceof ItemStream)) {
      return misfit("no stream");
    }
    if (context.scope !== undefined && !this.#join(call, context.scope)) {
      return misfit("no such scope");
    }
    call.run(entry);
    return null;
  }

  #join(call, id) {
    const scope = this.#session.protocol.incoming.get(id);
    if (!scope?.members || scope.isStopped) return false;
    scope.members.add(call);
    call.ended.then(() => scope.members.delete(call));
    return true;
  }

  #runCallback(call) {
    const { parent: id, callback, stream } = call.request.context;
    const parent = this.#session.protocol.outgoing.get(id);
    const reference = parent?.references.get(callback);
    if (reference?.kind !== (stream ? 2 : 1)) return ["method_not_found", "no such callback"];
    if (parent.isCancelling) return ["cancelled", "the call of this callback has ended", { started: false }];
    if (call.request.unreadable) return notReadable(call.request.unreadable);
    if (stream && call.request.args.length) return misfit("a stream has no arguments");
    if (reference.isBusy) {
      const busy = { type: "trio.BusyResourceError", started: false };
      return ["raised", "another task pulls this stream", busy];
    }
    parent.callbacks.add(call);
    call.ended.then(() => parent.callbacks.delete(call));
    if (!stream) {
      call.run(entryOf(reference.target));
      return null;
    }
    reference.isBusy = true;
    call.ended.then(() => (reference.isBusy = false));
    call.run(entryOf(() => {}), () => (reference.iterator ??= iteratorOf(reference.target)));
    return null;
  }

  notification(message) {
    const entry = this.#table.get(message.method);
    const call = new IncomingCall(this.#session, message);
    this.notifications.add(call);
    if (entry?.kind === NOTIFICATION && !message.unreadable) call.run(entry);
    else call.refuse({ message: "it is unknown, or cannot be read" });
  }

  #endNotification(call, problem) {
    this.notifications.delete(call);
    if (problem !== undefined) this.#session.report(`the notification ${call.request.method} failed`, problem);
    this.#session.protocol.grantNotification();
    this.#session.wake();
    this.#session.settle();
  }

  // ── answering ──

  answer(call, isFailed, value) {
    const { id, context } = call.request;
    if (!id) return this.#endNotification(call, isFailed && !call.isStop(value) ? value : undefined);
    if (isFailed) return this.answerWith(call, this.#mapOf(call, value));
    try {
      this.#session.protocol.reply(id, context.stream ? null : value ?? null);
    } catch (error) {
      return this.answerWith(call, { code: "internal", message: `the result cannot be sent: ${messageOf(error)}` });
    }
    this.#session.wake();
    this.#session.settle();
  }

  #mapOf(call, error) {
    if (!call.isStop(error)) return toMap(error);
    const message = call.stopCode === "deadline" ? "the deadline has passed"
      : this.#session.isOver ? "this session is ending" : "cancelled by the caller";
    return { code: call.stopCode, message, started: true };
  }

  answerWith(call, map) {
    const { id } = call.request;
    if (!id) return this.#endNotification(call, map.message);
    const { protocol } = this.#session;
    try {
      protocol.replyError(id, map);
    } catch (error) { // its arguments, fields or notes cannot be sent, or all is too large
      const { code, message, type } = map;
      const notes = type && [`not sent: ${messageOf(error)}`];
      protocol.replyError(id, { code, message: forPeople(message, 1000), type, notes });
    }
    this.#session.wake();
    this.#session.settle();
  }

  /** Answers the stopped calls whose handlers still run, because their page is unloaded. */
  abandon() {
    for (const call of this.#session.protocol.incoming.values()) call?.refuse(this.#mapOf(call, call.reason));
  }

  /** Stops everything, and returns a promise of its end. */
  stop(reason) {
    const running = [...this.#session.protocol.incoming.values(), ...this.notifications].filter(Boolean);
    for (const call of running) call.stop("cancelled", reason);
    return Promise.all(running.map((call) => call.ended));
  }
}
