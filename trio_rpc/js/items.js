/** Items of streams: the side that takes them, and the side that makes them. */

import { turnIfLate } from "./turns.js";

/** The method that `await using` calls; it is not in every browser yet. */
export const DISPOSE = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");

/**
 * The items of one call, as an async iterable. Leaving the loop cancels the call, and waits until
 * the other end has closed the source of the items.
 */
export class ItemStream {
  #open;
  #call = null;
  /** Bound: the first credit of the Request, in items and in bytes. */
  #queue = [];
  #next = 0;
  #taken = { items: 0, bytes: 0 };
  #wake = null;
  #isOver = false;
  #error;

  /** @param {(stream: ItemStream) => import("./outgoing.js").OutgoingCall} open makes the call */
  constructor(open) {
    this.#open = open;
  }

  /** Makes the call if it has not been made yet. */
  begin() {
    if (this.#call === null && !this.#isOver) {
      this.#call = this.#open(this);
      const call = this.#call;
      call.settled.then(() => this.finish(call.reason), (error) => this.finish(error));
    }
    return this.#call;
  }

  // ── called by the call ──

  add(value, size) {
    this.#queue.push({ value, size });
    this.#rouse();
  }

  finish(error) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#error = error;
    this.#rouse();
  }

  /** Drops the items that wait, since the call is cancelled. */
  drop() {
    this.#queue = [];
    this.#next = 0;
  }

  #rouse() {
    this.#wake?.();
    this.#wake = null;
  }

  // ── called by the user ──

  async next() {
    this.begin();
    for (;;) {
      if (this.#next < this.#queue.length) {
        const turn = turnIfLate();
        if (!turn) return { done: false, value: this.#take() };
        await turn;
        continue;
      }
      if (this.#isOver) return this.#end();
      await new Promise((resolve) => {
        const before = this.#wake;
        this.#wake = () => (before?.(), resolve());
      });
    }
  }

  #take() {
    const { value, size } = this.#queue[this.#next];
    this.#queue[this.#next++] = null;
    if (this.#next > 1024 || this.#next === this.#queue.length) {
      this.#queue.splice(0, this.#next);
      this.#next = 0;
    }
    this.#taken.items++;
    this.#taken.bytes += size;
    if (this.#call.giveCredit(this.#taken)) this.#taken = { items: 0, bytes: 0 };
    return value;
  }

  #end() {
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw error;
    return { done: true, value: undefined };
  }

  async return() {
    this.drop();
    if (this.#call !== null && !this.#isOver) {
      this.#call.cancel(LEFT);
      await this.#call.settled.catch((error) => {
        if (error !== this.#call.reason) throw error;
      });
    }
    this.finish();
    this.#error = undefined;
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator]() {
    this.begin();
    return this;
  }

  [DISPOSE]() {
    return this.return();
  }
}

/** The reason of a stream that is cancelled because its consumer has left it. */
export const LEFT = new DOMException("the consumer has left the stream", "AbortError");

/** Returns the iterator over a source that the other end pulls. */
export function iteratorOf(source) {
  if (typeof source.getReader === "function") return readerOf(source.getReader());
  if (typeof source[Symbol.asyncIterator] === "function") return source[Symbol.asyncIterator]();
  return source[Symbol.iterator]();
}

/**
 * Iterates over a ReadableStream. Its own iterator is not in every browser, and its `return` would wait
 * for a `next` that waits for an item.
 */
function readerOf(reader) {
  return {
    next: () => reader.read(),
    async return() {
      await reader.cancel();
      return { done: true, value: undefined };
    },
  };
}

/**
 * Sends each item when there is credit, and closes the iterator.
 * @param {import("./incoming.js").IncomingCall} call the stream
 */
export async function sendItems(call, iterator) {
  let closed = null;
  // A call that is stopped closes its source at once: that may end a `next` that waits.
  call.close = () => (closed ??= (async () => iterator.return?.())());
  try {
    while (!call.isStopped) {
      if (!call.mayPass) {
        await call.wait();
        continue;
      }
      const { done, value } = await iterator.next();
      if (done) break;
      while (!call.mayPass && !call.isStopped) await call.wait();
      if (!call.isStopped) call.item(value ?? null);
    }
  } finally {
    await call.close();
  }
  if (call.isStopped) throw call.reason;
}
