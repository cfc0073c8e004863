import { abortReason } from "./errors.js";

/** Sends notifications, in order, as the other end's credit allows. */
export class Notifications {
  #core;
  /** Bound: the user's own `notify` calls that are not settled. */
  #waiting = [];

  constructor(core) {
    this.#core = core;
  }

  /** Resolves when the notification is queued; an abort before that takes it back. */
  send(what, signal) {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    return new Promise((resolve, reject) => {
      const entry = { what, resolve, reject };
      this.#waiting.push(entry);
      signal?.addEventListener("abort", () => {
        const index = this.#waiting.indexOf(entry);
        if (index < 0) return;
        this.#waiting.splice(index, 1);
        reject(abortReason(signal));
      }, { once: true });
      this.sendWaiting();
    });
  }

  sendWaiting() {
    const { protocol } = this.#core;
    while (this.#waiting.length) {
      const { what, resolve, reject } = this.#waiting[0];
      const problem = this.#core.problem(what.context);
      if (problem === null && !(protocol.notificationCredit > 0 && protocol.hasRoom)) return;
      this.#waiting.shift();
      if (problem !== null) {
        reject(problem);
        continue;
      }
      try {
        protocol.notify(what.method, what.args, what.kwargs, what.context);
        this.#core.wake();
        resolve();
      } catch (error) {
        reject(error);
      }
    }
  }
}
