import { Message } from "/message.js";

const SHOWN = 500; // the most rows on the page; all files are counted
const at = (id) => document.getElementById(id);
const message = new Message();
let scan = null;

message.addEventListener("state", ({ detail }) => {
  at("state").textContent = detail.state;
  at("state").dataset.state = detail.state;
});
message.connect().catch((error) => outcome(error.message, true));

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  scan = new AbortController();
  begin();
  const data = { folder: at("folder").value, pause: Number(at("pause").value) };
  try {
    const summary = await message.post("scan", data, { found, progress }, { signal: scan.signal });
    const { files, bytes, seconds } = summary;
    outcome(`${files} files of ${bytes} bytes in ${seconds.toFixed(2)} s`);
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
  at("count").textContent = String(Number(at("count").textContent) + 1);
  const row = document.createElement("li");
  const bytes = document.createElement("span");
  row.textContent = path; // text, never markup: a file name may contain anything
  bytes.textContent = ` ${size}`;
  row.append(bytes);
  at("found").append(row);
  if (at("found").childElementCount > SHOWN) at("found").firstElementChild.remove();
}

function progress(share) {
  at("progress").value = share;
}

function outcome(text, isFailure = false) {
  at("outcome").textContent = text;
  at("outcome").classList.toggle("failed", isFailure);
}
