/** The longest time that setTimeout accepts; a longer one would end at once. */
const LONGEST = 2 ** 31 - 1;

/** Runs a function once, after a time of any length, unless it is stopped. */
export class Timer {
  #timer;

  /** @param {number} ms Infinity for never */
  constructor(ms, run) {
    if (ms !== Infinity) this.#wait(Math.max(ms, 0), run);
  }

  #wait(left, run) {
    const part = Math.min(left, LONGEST);
    this.#timer = setTimeout(() => (left > part ? this.#wait(left - part, run) : run()), part);
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

/** Waits until a promise is settled, but no longer than that many milliseconds. */
export function within(ms, promise) {
  return new Promise((resolve) => {
    const timer = new Timer(ms, resolve);
    promise.finally(() => timer.stop()).then(resolve, resolve);
  });
}
