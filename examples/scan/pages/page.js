import { Message } from "/message.js";

const SHOWN = 500; // the most rows on the page; all files are counted
const at = (id) => document.getElementById(id);
const message = new Message();
let scan = null;

message.addEventListener("state", ({ detail }) => {
  at("state").textContent = detail.state;
  at("state").dataset.state = detail.state;
  if (detail.state === "open" && at("outcome").dataset.of === "connection") outcome("");
});
message.connect().catch((error) => outcome(error.message, true, "connection"));

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  scan = new AbortController();
  begin();
  const data = { folder: at("folder").value, pause: Number(at("pause").value) };
  try {
    const summary = await message.post("scan", data, { found, progress }, { signal: scan.signal });
    const { files, bytes, seconds } = summary;
    outcome(`${files} files of ${human(bytes)} in ${seconds.toFixed(2)} s`);
  } catch (error) {
    const isCancelled = error.name === "AbortError";
    outcome(isCancelled ? "cancelled; the scan has ended" : error.message, !isCancelled);
  } finally {
    at("start").disabled = false;
    at("cancel").disabled = true;
  }
});

at("cancel").addEventListener("click", () => scan.abort());

function begin() {
  at("start").disabled = true;
  at("cancel").disabled = false;
  at("found").replaceChildren();
  at("count").textContent = "0";
  at("progress").value = 0;
  outcome("scanning …");
}

function found({ path, size }) {
  const number = Number(at("count").textContent) + 1;
  at("count").textContent = String(number);
  const row = document.createElement("li");
  row.value = number; // also when earlier rows are gone
  const bytes = document.createElement("span");
  row.textContent = path; // text, never markup: a file name may contain anything
  bytes.textContent = ` ${human(size)}`;
  row.append(bytes);
  at("found").append(row);
  if (at("found").childElementCount > SHOWN) at("found").firstElementChild.remove();
}

function progress(share) {
  at("progress").value = share;
}

function human(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

function outcome(text, isFailure = false, of = "scan") {
  at("outcome").dataset.of = of;
  at("outcome").textContent = text;
  at("outcome").classList.toggle("failed", isFailure);
}
