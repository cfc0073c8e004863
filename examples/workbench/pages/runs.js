/** The cards of commands: each is one call, from its start until its handler in the plugin has ended. */

import { withCall } from "/session.js";
import { at, make } from "./parts.js";
import { button } from "./plugins.js";

const KEPT = 50; // cards on the page; the oldest ended ones go first

export class Run {
  #stop = new AbortController();
  #bar = make("progress", { max: 1 });
  #share = make("span", { className: "share" });
  #line = make("p", { className: "line" });
  #question = make("div", { className: "question" });
  #outcome = make("div", { className: "outcome", role: "status" });
  #cancel = button("Cancel", "quiet", () => this.#abort());

  constructor(plugin, title, argument) {
    const of = make("code", {}, [plugin, argument].filter(Boolean).join(" "));
    const head = make("div", { className: "head" }, make("div", {}, make("h3", {}, title), of), this.#cancel);
    const meter = make("div", { className: "meter" }, this.#bar, this.#share);
    this.#bar.ariaLabel = title;
    this.card = make("article", { className: "card run" }, head, meter, this.#line, this.#question, this.#outcome);
    this.card.dataset.plugin = plugin;
    at("#runs .cards").prepend(this.card);
    this.card.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  /** Runs the command, and shows its progress, its questions and its end. */
  async run(call) {
    this.#enter("running", "");
    // The functions are called by the plugin, through the main process. `confirm` returns a value.
    const window = {
      progress: (share, text) => this.#progress(share, text),
      confirm: withCall((call, text) => this.#ask(text, call.signal)),
    };
    try {
      const { text, lines } = await call(window, this.#stop.signal);
      this.#progress(1, "");
      this.#enter("done", text, lines);
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#cancel.remove();
      forgetOld();
    }
  }

  #fail(error) {
    if (error.name === "AbortError") this.#enter("cancelled", "Cancelled");
    else if (error.name === "SessionBroken") this.#enter("failed", `The connection was lost; ${fateOf(error)}.`);
    else this.#enter("failed", error.message);
  }

  #abort() {
    this.#cancel.disabled = true;
    this.#line.textContent = "cancelling …";
    this.#stop.abort();
  }

  #progress(share, text) {
    this.#bar.value = share;
    this.#share.textContent = `${Math.floor(100 * share)} %`;
    this.#line.textContent = text;
  }

  /** Asks the user. The question goes when the plugin does not want an answer any more. */
  #ask(text, signal) {
    return new Promise((resolve, reject) => {
      const answer = (value) => {
        this.#question.replaceChildren();
        this.#enter("running", "");
        resolve(value);
      };
      signal.addEventListener("abort", () => {
        this.#question.replaceChildren();
        reject(signal.reason);
      });
      const buttons = [button("Proceed", "primary", () => answer(true)), button("Stop", "", () => answer(false))];
      this.#question.replaceChildren(make("p", {}, text), make("div", { className: "answers" }, ...buttons));
      this.#enter("asking", "");
    });
  }

  #enter(state, text, lines = []) {
    this.card.dataset.state = state;
    const list = lines.length ? [make("ul", {}, ...lines.map((line) => make("li", {}, line)))] : [];
    this.#outcome.replaceChildren(...(text ? [make("p", {}, text)] : []), ...list);
    if (state !== "running") this.#line.textContent = "";
    count();
  }
}

function fateOf({ fate }) {
  return fate === "not started" ? "the command has not run" : "whether the command has run to its end is unknown";
}

/** Shows the running commands in the head of the page, also where the cards are out of sight. */
function count() {
  const [running, asking] = ["running", "asking"].map((state) => document.querySelectorAll(`.run[data-state=${state}]`).length);
  const parts = [running && `${running} running`, asking && `${asking} waiting for you`];
  const shown = at("#running");
  shown.textContent = parts.filter(Boolean).join(", ");
  shown.hidden = !shown.textContent;
  shown.classList.toggle("asks", asking > 0);
}

function forgetOld() {
  const cards = [...at("#runs .cards").children];
  const ended = cards.filter((card) => !["running", "asking"].includes(card.dataset.state));
  ended.slice(Math.max(0, KEPT - cards.length + ended.length)).forEach((card) => card.remove());
}
