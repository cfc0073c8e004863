/** A channel over a MessagePort, a Worker, or a worker's own global scope. */
export class PortChannel {
  #port;
  /** Packets that wait for the session; it always receives, so that they are few. */
  #packets = [];
  #waiting = null;
  #hasEnded = false;

  /** @param {MessagePort | Worker | DedicatedWorkerGlobalScope} port of which nothing else is sent */
  constructor(port) {
    this.#port = port;
    port.onmessage = ({ data }) => {
      if (data === null) this.#hasEnded = true;
      // Anything else than bytes ends the session, as an empty packet does.
      else this.#packets.push(data instanceof Uint8Array ? data : new Uint8Array(0));
      this.#rouse();
    };
    port.start?.();
  }

  #rouse() {
    this.#waiting?.();
    this.#waiting = null;
  }

  send(packet) {
    this.#port.postMessage(packet);
  }

  async receive() {
    while (!this.#packets.length && !this.#hasEnded) {
      await new Promise((resolve) => {
        this.#waiting = resolve;
      });
    }
    return this.#packets.shift() ?? null;
  }

  /** Tells the other end. The port itself belongs to its owner. */
  close() {
    if (!this.#hasEnded) this.#port.postMessage(null);
    this.#hasEnded = true;
    this.#rouse();
  }
}
