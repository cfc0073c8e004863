/** A channel over a WebSocket: each packet is one binary message. */

import { Fate, SessionBroken } from "./errors.js";
import { Timer } from "./timer.js";

const SUBPROTOCOL = "trio-rpc.v1";
/** Bytes that the browser may hold before the writer waits, so that small messages do not queue up. */
const HIGH = 256 * 1024;
/** Milliseconds between looks at these bytes: a WebSocket has no event for them. */
const LOOK = 4;

/**
 * A channel has `send(packet)`, which returns a promise when its user should wait, and `receive()`,
 * which resolves with the next packet, or with null at the end, and rejects when it breaks. `close()`
 * closes it after everything that was sent.
 */
export class WebSocketChannel {
  #socket;
  /** Packets that wait for the session; it always receives, so that they are few. */
  #packets = [];
  #waiting = null;
  #end = null;

  /**
   * Connects.
   * @param {string} url
   * @param {{WebSocket?: typeof WebSocket, signal?: AbortSignal, timeoutMs?: number}} [options]
   * @returns {Promise<WebSocketChannel>}
   */
  static open(url, { WebSocket = globalThis.WebSocket, signal, timeoutMs = 10_000 } = {}) {
    if (WebSocket === undefined) {
      throw new TypeError("no WebSocket here: give its class as the option WebSocket");
    }
    const socket = new WebSocket(url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    return new Promise((resolve, reject) => {
      const fail = (error) => {
        clean();
        socket.close();
        reject(error);
      };
      const aborted = () => fail(signal.reason);
      const broken = (why) => fail(new SessionBroken(`no connection to ${url}${why}`, { fate: Fate.NOT_STARTED }));
      const timer = new Timer(timeoutMs, () => broken(` in ${timeoutMs} ms`));
      const failed = () => broken(": is a server there that allows this origin?");
      const clean = () => {
        timer.stop();
        signal?.removeEventListener("abort", aborted);
        socket.onclose = socket.onerror = socket.onopen = null;
      };
      socket.onopen = () => {
        clean();
        resolve(new WebSocketChannel(socket));
      };
      socket.onclose = socket.onerror = failed;
      if (signal?.aborted) aborted();
      else signal?.addEventListener("abort", aborted);
    });
  }

  constructor(socket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      // Text, which has no bytes, ends the session as an empty packet does.
      this.#packets.push(typeof data === "string" ? new Uint8Array(0) : new Uint8Array(data));
      this.#rouse();
    };
    socket.onclose = ({ code, reason, wasClean }) => {
      const isOrderly = wasClean && [1000, 1001, 1005].includes(code);
      this.#end = { error: isOrderly ? null : new Error(`the connection is lost (code ${code}${reason && `: ${reason}`})`) };
      this.#rouse();
    };
    socket.onerror = () => {}; // a close follows, which says more
  }

  #rouse() {
    this.#waiting?.();
    this.#waiting = null;
  }

  send(packet) {
    this.#socket.send(packet);
    if (this.#socket.bufferedAmount > HIGH) return this.#drained();
  }

  async #drained() {
    while (this.#end === null && this.#socket.bufferedAmount > HIGH / 2) {
      await new Promise((resolve) => setTimeout(resolve, LOOK));
    }
  }

  async receive() {
    while (!this.#packets.length && !this.#end) {
      await new Promise((resolve) => {
        this.#waiting = resolve;
      });
    }
    if (this.#packets.length) return this.#packets.shift();
    if (this.#end.error) throw this.#end.error;
    return null;
  }

  close() {
    this.#socket.close(1000);
  }
}
