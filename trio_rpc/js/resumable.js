/**
 * A channel that survives the loss of its connections, and neither loses nor repeats a packet
 * (docs/channels.md, "Resumable").
 *
 * Each end numbers its packets and keeps them until the other end has acknowledged them. Over a new
 * connection each end says which packet it received last, and the other sends the later ones again.
 *
 *     connected --(lost)--> reconnecting --(Accept, and all is sent again)--> resumed
 *                                |------(refused, or `graceMs` are over)--> lost
 */

import { DecodeError, Refused, Timer, within } from "./session.js";

const [OPEN, RESUME, ACCEPT, REFUSE, DATA, ACK, END] = [0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46];
const VERSION = 1;
const HEADER = 17;
const ACK_PACKETS = 64;
const ACK_BYTES = 256 * 1024;
const MAX_PACKETS = 4096;
/** Milliseconds that closing waits until the other end has everything. */
const CLOSE = 5000;

const DEFAULTS = { graceMs: 120_000, buffer: 4 * 1024 * 1024, firstDelayMs: 100, maxDelayMs: 10_000 };

function frame(kind, number, ack, rest = new Uint8Array(0)) {
  const data = new Uint8Array(HEADER + rest.length);
  const view = new DataView(data.buffer);
  view.setUint8(0, kind);
  view.setBigUint64(1, BigInt(number));
  view.setBigUint64(9, BigInt(ack));
  data.set(rest, HEADER);
  return data;
}

function parse(data) {
  if (data.length < HEADER || data[0] < OPEN || data[0] > END) {
    throw new Refused("the server does not resume sessions: its serve() lacks resume=True");
  }
  const view = new DataView(data.buffer, data.byteOffset);
  const [number, ack] = [Number(view.getBigUint64(1)), Number(view.getBigUint64(9))];
  return { kind: data[0], number, ack, rest: data.subarray(HEADER) };
}

export class ResumableChannel {
  #connect;
  #options;
  #token = null;
  #carrier = null;
  #isCaughtUp = false;
  /** Packets that are not acknowledged, the first of which has the number `confirmed + 1`. */
  #kept = [];
  #keptBytes = 0;
  #confirmed = 0;
  #received = 0;
  #behind = { packets: 0, bytes: 0 };
  #packets = [];
  #end = null;
  #isClosing = false;
  #changed = [];
  #nap = null;
  /** Called with each new state. */
  onstate = () => {};

  /** @param {() => Promise<object>} connect makes a connection */
  constructor(connect, options) {
    this.#connect = connect;
    this.#options = { ...DEFAULTS, ...(options === true ? {} : options) };
  }

  /** Makes the first connection. */
  async open() {
    const carrier = await this.#connect();
    try {
      const answer = await this.#greet(carrier, frame(OPEN, 0, 0, Uint8Array.of(VERSION)));
      this.#token = answer.rest.slice();
    } catch (error) {
      carrier.close();
      throw error;
    }
    this.#run(carrier);
    return this;
  }

  async #greet(carrier, first) {
    carrier.send(first);
    const late = new Timer(10_000, () => carrier.close());
    const data = await carrier.receive().finally(() => late.stop());
    if (data === null) throw new Error("the connection was closed");
    const answer = parse(data);
    if (answer.kind === REFUSE) throw new Refused(new TextDecoder().decode(answer.rest));
    if (answer.kind !== ACCEPT || answer.rest.length !== 16) throw new DecodeError("no Accept");
    return answer;
  }

  // ── connections ──

  /** Uses one connection after the other, until the channel is over. */
  async #run(first) {
    for (const [name, target] of WAKING) target()?.addEventListener(name, this);
    await this.#use(first);
    let failures = 0;
    while (this.#end === null) {
      this.onstate("reconnecting");
      const grace = new Timer(this.#options.graceMs, () => this.#fail(`no connection for ${this.#options.graceMs} ms`));
      const before = this.#received + this.#confirmed;
      for (let carrier = null; carrier === null && this.#end === null; ) {
        await this.#pause(Math.min(this.#options.maxDelayMs, this.#options.firstDelayMs * 2 ** Math.min(failures, 30)));
        carrier = await this.#resume();
        if (carrier === null) failures++;
        else {
          grace.stop();
          await this.#use(carrier, "resumed");
        }
      }
      grace.stop();
      failures = this.#received + this.#confirmed > before ? 0 : failures + 1;
    }
    for (const [name, target] of WAKING) target()?.removeEventListener(name, this);
  }

  /** Waits a random part of that time, or until the network is back, or the page is shown. */
  async #pause(most) {
    await new Promise((resolve) => {
      const timer = new Timer(Math.random() * most, resolve);
      this.#nap = () => (timer.stop(), resolve());
    });
    this.#nap = null;
  }

  /** The listener of `online` and `visibilitychange`. */
  handleEvent() {
    if (globalThis.document?.visibilityState !== "hidden") this.#nap?.();
  }

  async #resume() {
    let carrier = null;
    try {
      carrier = await this.#connect();
      if (this.#end !== null) throw new Error("the channel is over");
      const rest = Uint8Array.of(VERSION, ...this.#token);
      const answer = await this.#greet(carrier, frame(RESUME, 0, this.#received, rest));
      if (answer.ack < this.#confirmed) throw new DecodeError("packets that were acknowledged");
      this.#confirm(answer.ack);
      return carrier;
    } catch (error) {
      carrier?.close();
      if (carrier !== null && (error instanceof Refused || error instanceof DecodeError)) this.#fail(error.message);
      return null;
    }
  }

  /** Uses a connection until it is lost, or the channel is over. */
  async #use(carrier, state = "connected") {
    this.#carrier = carrier;
    this.#catchUp(carrier).then(() => this.#carrier === carrier && this.onstate(state), () => {});
    try {
      for (let data; this.#carrier === carrier && (data = await carrier.receive()) !== null; ) this.#accept(data);
    } catch (error) {
      if (error instanceof DecodeError || error instanceof Refused) this.#fail(error.message);
    }
    this.#isCaughtUp = false;
    if (this.#carrier === carrier) this.#carrier = null;
    carrier.close();
    this.#rouse();
  }

  async #catchUp(carrier) {
    for (let number = this.#confirmed + 1; number <= this.#confirmed + this.#kept.length; number++) {
      const full = carrier.send(this.#frameOf(number));
      if (full) await full;
      if (this.#carrier !== carrier) throw new Error("lost");
      number = Math.max(number, this.#confirmed);
    }
    this.#isCaughtUp = true; // in the same step as the last packet: no packet can come between
  }

  #frameOf(number) {
    const packet = this.#kept[number - this.#confirmed - 1];
    this.#behind = { packets: 0, bytes: 0 };
    return frame(packet.length ? DATA : END, number, this.#received, packet);
  }

  #accept(data) {
    const { kind, number, ack, rest } = parse(data);
    if (kind < DATA) throw new DecodeError("not a first frame");
    this.#confirm(ack);
    if (kind === ACK) return;
    if (number !== this.#received + 1) throw new DecodeError(`packet ${number} after ${this.#received}`);
    this.#received = number;
    if (kind === END) this.#end ??= { error: null };
    else this.#packets.push(rest);
    this.#behind.packets++;
    this.#behind.bytes += rest.length;
    const isDue = this.#behind.packets >= ACK_PACKETS || this.#behind.bytes >= ACK_BYTES || kind === END;
    if (isDue && this.#isCaughtUp) {
      this.#behind = { packets: 0, bytes: 0 };
      this.#carrier.send(frame(ACK, 0, number));
    }
    this.#rouse();
  }

  #confirm(number) {
    if (number > this.#confirmed + this.#kept.length) throw new DecodeError(`packet ${number} was never sent`);
    if (number <= this.#confirmed) return;
    for (const packet of this.#kept.splice(0, number - this.#confirmed)) this.#keptBytes -= packet.length;
    this.#confirmed = number;
    this.#rouse();
  }

  #fail(text) {
    const left = this.#kept.length;
    this.#end ??= { error: new Error(`${text}${left ? `; ${left} packets may not have arrived` : ""}`) };
    this.#stop();
  }

  #stop() {
    this.#carrier?.close();
    this.#carrier = null;
    this.#nap?.();
    this.#rouse();
  }

  #rouse() {
    for (const resolve of this.#changed.splice(0)) resolve();
  }

  #change() {
    return new Promise((resolve) => this.#changed.push(resolve));
  }

  // ── as a channel ──

  send(packet) {
    this.#kept.push(packet);
    this.#keptBytes += packet.length;
    const full = this.#isCaughtUp ? this.#carrier?.send(this.#frameOf(this.#confirmed + this.#kept.length)) : undefined;
    return this.#hasRoom ? full : this.#room();
  }

  get #hasRoom() {
    return this.#kept.length < MAX_PACKETS && this.#keptBytes < this.#options.buffer;
  }

  async #room() {
    while (!this.#hasRoom && this.#end === null) await this.#change();
  }

  async receive() {
    while (this.#packets.length === 0 && this.#end === null) await this.#change();
    if (this.#packets.length) return this.#packets.shift();
    if (this.#end.error !== null) throw this.#end.error;
    return null;
  }

  /** Drops a connection that seems to be dead. Tells whether there can be another one. */
  renew() {
    const carrier = this.#carrier;
    this.#carrier = null;
    this.#isCaughtUp = false;
    carrier?.close();
    return this.#end === null;
  }

  /**
   * Sends the end, and waits until everything has arrived, also over a later connection. If the other end
   * has closed as well, this does not wait for a later connection.
   */
  async close() {
    if (this.#isClosing) return;
    this.#isClosing = true;
    if (this.#end === null || this.#end.error === null) {
      this.send(new Uint8Array(0));
      await within(CLOSE, this.#allArrived());
    }
    this.#end ??= { error: null };
    this.#stop();
  }

  async #allArrived() {
    while (this.#kept.length && (this.#end === null || this.#carrier)) await this.#change();
  }
}

/** The events that end a pause, and their targets where there are such. */
const WAKING = [["online", () => globalThis.addEventListener && globalThis], ["visibilitychange", () => globalThis.document]];
