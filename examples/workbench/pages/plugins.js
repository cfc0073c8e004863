/** The cards of the plugins, which show the last status that the main process has told. */

import { at, make, note } from "./parts.js";

const STATES = { starting: "starting", running: "ready", restarting: "starting again", failed: "stopped" };

export class PluginCards {
  #cards = new Map();

  /** @param actions `run(plugin, command, argument)`, `kill(plugin)` and `start(plugin)` */
  constructor(actions) {
    this.actions = actions;
  }

  show(statuses) {
    for (const status of statuses) {
      if (!this.#cards.has(status.name)) this.#cards.set(status.name, new PluginCard(status.name, this.actions));
      this.#cards.get(status.name).show(status);
    }
  }
}

class PluginCard {
  #last = null;
  #name;
  #actions;
  #state = make("span", { className: "badge" });
  #facts = make("p", { className: "facts" });
  #end = make("p", { className: "end" });
  #commands = make("div", { className: "commands" });
  #kill;
  #start;

  constructor(name, actions) {
    this.#name = name;
    this.#actions = actions;
    this.#kill = button("Kill", "quiet danger", () => actions.kill(name));
    this.#kill.title = "Kill the process of this plugin";
    this.#start = button("Start again", "", () => actions.start(name));
    const head = make("div", { className: "head" }, make("div", {}, make("h3", {}, name), this.#state), this.#kill, this.#start);
    const card = make("article", { className: "card plugin" }, head, this.#facts, this.#end, this.#commands);
    card.dataset.plugin = name;
    this.card = card;
    at("#plugins .cards").append(card);
  }

  show(status) {
    const { state, pid, restarts, running, last_end: end, commands } = status;
    this.card.dataset.state = state;
    this.#state.textContent = STATES[state];
    const facts = [pid && `process ${pid}`, restarts && counted(restarts, "restart"), running && `${running} running`];
    this.#facts.textContent = facts.filter(Boolean).join(" · ") || "no process";
    this.#end.textContent = state === "running" ? "" : end;
    this.#kill.hidden = pid === null;
    this.#start.hidden = state !== "failed";
    if (JSON.stringify(commands) !== JSON.stringify(this.#last?.commands)) this.#showCommands(commands);
    this.#tell(status);
    this.#last = status;
  }

  #showCommands(commands) {
    this.#commands.replaceChildren(...commands.map((command) => this.#form(command)));
  }

  #form({ name, title, about, label, default: suggested }) {
    const input = make("input", { value: suggested, autocomplete: "off", spellcheck: false });
    const run = make("button", {}, title);
    const fields = label ? [make("label", {}, make("span", {}, label), input), run] : [run];
    const form = make("form", {}, make("p", {}, about), make("div", { className: "fields" }, ...fields));
    form.dataset.command = name;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#actions.run(this.#name, { name, title }, label ? input.value : "");
    });
    return form;
  }

  /** Adds to the list of events how this status differs from the last one. */
  #tell({ state, pid, restarts, last_end: end }) {
    const last = this.#last;
    if (last === null) return;
    const name = this.#name;
    if (restarts > last.restarts) note(`${name}: ${end}. It is started again.`, true);
    if (state === "failed" && last.state !== "failed") note(`${name}: ${end}`, true);
    if (state === "running" && end && pid !== last.pid) note(`${name}: ready again, as process ${pid}`);
  }
}

export function button(text, className, onclick) {
  return make("button", { type: "button", className, onclick }, text);
}

function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
