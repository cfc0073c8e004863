/** A worker, in Node or in a page, that offers the service over each port that it is sent. */

import { interopService } from "./interop.mjs";

const host = globalThis.postMessage ? globalThis : (await import("node:worker_threads")).parentPort;

host.onmessage = async ({ data: { module, port } }) => {
  const rpc = await import(module);
  await rpc.openSession(new rpc.PortChannel(port), { services: { test: interopService(rpc) } });
};
host.postMessage("ready");
