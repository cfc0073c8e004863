/** Unanswered Pings after which the other end is given up. */
const ASKED = 3;

/**
 * Asks a silent peer for a sign of life, and gives it up after several unanswered Pings. Time in which
 * this program was frozen does not count: a tab in the background, or a computer that slept, could not
 * have heard.
 */
export class Keepalive {
  #interval;
  #on;
  #timer;
  #asked = 0;
  #hasHeard = false;
  #due = 0;

  /** @param {number} interval milliseconds @param {object} on `ping`, `renew` and `lost` */
  constructor(interval, on) {
    this.#interval = interval;
    this.#on = on;
    if (interval !== Infinity) this.#start();
  }

  #start() {
    this.#due = performance.now() + this.#interval;
    this.#timer = setTimeout(() => this.#look(), this.#interval);
    this.#timer.unref?.();
  }

  heard() {
    this.#asked = 0;
    this.#hasHeard = true;
  }

  #look() {
    const wasFrozen = performance.now() - this.#due > this.#interval / 2;
    if (wasFrozen) this.#asked = 0;
    if (this.#asked > ASKED) {
      this.#asked = 0;
      if (!this.#on.renew()) return this.#on.lost();
    }
    if (!this.#hasHeard) {
      this.#asked++;
      this.#on.ping();
    }
    this.#hasHeard = false;
    this.#start();
  }

  stop() {
    clearTimeout(this.#timer);
  }
}
