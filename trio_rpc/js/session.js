/**
 * The session protocol of trio_rpc in JavaScript: a page, a worker or a Node program is one end of a
 * session, as a Python program is.
 *
 *     import { connect } from "./session.js";
 *     const session = await connect("wss://example.org/rpc", { services: { window: { confirm } } });
 *     const price = await session.proxy("market").price("BTC");
 *
 * No dependencies. docs/protocol.md of the project defines the messages.
 */

import { openSession } from "./core.js";
import { Timer, within } from "./timer.js";
import { WebSocketChannel } from "./websocket.js";

/**
 * Connects to a session server.
 * @param {string} url ws:// or wss://
 * @param {object} [options] see session.d.ts
 */
export async function connect(url, options = {}) {
  const open = () => WebSocketChannel.open(url, options);
  if (!options.resume) return openSession(await open(), options);
  const { ResumableChannel } = await import("./resumable.js"); // most pages do without it
  return openSession(await new ResumableChannel(open, options.resume).open(), options);
}

export { openSession, Timer, WebSocketChannel, within };
export { PortChannel } from "./port.js";
export { named } from "./outgoing.js";
export { duplex, method, notification, startable, stream, withCall } from "./services.js";
export * from "./errors.js";
export {
  Complex, DateTime, Decimal, Extension, FrozenSet, PlainDate, PlainTime, Reference, TimeSpan, Tuple, UUID,
} from "./values.js";
