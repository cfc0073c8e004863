/** The page: one end of a session with the main process, for as long as the page is open. */

import { Message } from "/message.js";
import { connect } from "/session.js";
import { at, note } from "./parts.js";
import { PluginCards } from "./plugins.js";
import { Run } from "./runs.js";

const MOST = 5000; // milliseconds until the next attempt to connect
let workbench = null;

const cards = new PluginCards({
  run: (plugin, { name, title }, argument) => {
    const run = new Run(plugin, title, argument);
    run.run((window, signal) => session.proxy("workbench", { signal }).run(plugin, name, argument, window));
  },
  kill: (plugin) => workbench.kill(plugin).catch(told),
  start: (plugin) => workbench.start(plugin).catch(told),
});
let session = null;

function told(error) {
  note(error.message, true);
}

function show(state) {
  document.body.dataset.connection = state;
  at("#connection").textContent = state;
  at("#plugins").inert = !session?.isOpen;
}

/** Opens a session, and follows the plugins until it ends. With `resume` it survives lost connections. */
async function follow() {
  const url = await new Message().post("sessions");
  session = await connect(url, { resume: true });
  session.addEventListener("state", ({ detail }) => show(detail));
  show(session.state);
  workbench = session.proxy("workbench");
  for await (const statuses of workbench.plugins()) cards.show(statuses);
}

for (let failures = 0; ; failures++) {
  try {
    await follow();
  } catch (error) {
    if (session !== null) {
      failures = 0;
      note(`The session is over: ${error.message}`, true);
    }
    session = null;
    show("connecting");
  }
  await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(MOST, 250 * 2 ** failures)));
}
