/**
 * The queue of messages to send, and the packets that they leave in.
 *
 * Small messages leave in the order in which they were put, as many in a packet as fit. A large one
 * leaves in pieces, one in each packet, so that small messages pass between them. The messages of
 * one call keep their order: a large one waits for the small ones before it (`after`), and each
 * one behind it joins the large ones. Only one large message is in transit at a time.
 *
 * Bound: the session puts no call, notification or item while `SEND_BUFFER` bytes are queued. An
 * answer above `MAX_UNSENT` bytes is replaced by an error, and there are at most `maxCalls` of these.
 */

import { LAST_PIECE, PIECE, PONG } from "./messages.js";

/** Bytes that each packet keeps free for a Pong, a Credit and the header of a piece. */
const ROOM = 32;

export class Outbox {
  #small = [];
  #large = [];
  /** The number of large messages that wait, by the call that they belong to. */
  #busy = new Map();
  #put = 0;
  #pong = null;
  /** Whether pieces of a withdrawn message have left: one large message is in transit at a time. */
  #isWithdrawn = false;
  #isLargeNext = false;
  maxPacket = 16_384;
  size = 0;

  get isEmpty() {
    return !(this.#small.length || this.#large.length || this.#pong !== null || this.#isWithdrawn);
  }

  /**
   * @param {Uint8Array} data one message
   * @param {object} [about] `call`: the call that it must stay in order with; `begins`: the id of the
   *   Request or the Notification that it is; `onLeft`: called when its last byte leaves
   */
  put(data, about = {}) {
    const entry = { data, at: 0, after: this.#put, ...about };
    this.size += data.length;
    if (data.length > this.maxPacket - ROOM || this.#busy.has(entry.call)) this.#putLarge(entry);
    else this.#putSmall(entry);
  }

  #putSmall(entry) {
    entry.number = ++this.#put;
    this.#small.push(entry);
  }

  #putLarge(entry) {
    this.#large.push(entry);
    if (entry.call !== undefined) this.#busy.set(entry.call, (this.#busy.get(entry.call) ?? 0) + 1);
  }

  /** Puts a Goodbye, which must not overtake a call. */
  putGoodbye(data) {
    this.size += data.length;
    const entry = { data, at: 0, after: this.#put, isWhole: true };
    if (this.#large.some((large) => large.begins !== undefined)) this.#large.push(entry);
    else this.#putSmall(entry);
  }

  /** One Pong answers all Pings before it, so it replaces one that has not left. */
  putPong(number) {
    this.#pong = number;
  }

  /** Withdraws a Request of which a part has not left, and tells whether there was one. */
  withdraw(id) {
    for (const queue of [this.#small, this.#large]) {
      const index = queue.findIndex((entry) => entry.begins === id);
      if (index < 0) continue;
      const [entry] = queue.splice(index, 1);
      this.size -= entry.data.length - entry.at;
      if (queue === this.#large) this.#leaveLane(entry);
      if (entry.at > 0) this.#isWithdrawn = true;
      return true;
    }
    return false;
  }

  /** Returns the next packet, or null. @param {(fields: unknown[]) => Uint8Array} encode */
  nextPacket(encode) {
    if (this.isEmpty) return null;
    const packet = new Packet(this.maxPacket);
    if (this.#pong !== null) packet.add(encode([PONG, this.#pong]));
    this.#pong = null;
    if (this.#isWithdrawn) packet.add(WITHDRAWAL);
    this.#isWithdrawn = false;
    if (this.#isLargeNext) this.#takeLarge(packet);
    this.#takeSmall(packet);
    this.#isLargeNext = this.#mayBeginLarge() && !this.#takeLarge(packet);
    return packet.joined();
  }

  #mayBeginLarge() {
    const [large] = this.#large;
    return large !== undefined && !(this.#small[0]?.number <= large.after);
  }

  /** Takes the small messages that fit, half a packet of them if a large one can use the rest. */
  #takeSmall(packet) {
    let count = 0;
    while (count < this.#small.length) {
      const entry = this.#small[count];
      const least = count > 0 && this.#mayBeginLarge() ? this.maxPacket / 2 : 0;
      if (packet.room - entry.data.length < least) break;
      packet.add(entry.data);
      this.size -= entry.data.length;
      entry.onLeft?.();
      count++;
    }
    this.#small.splice(0, count);
  }

  /** Takes a part of the first large message, if there is room. */
  #takeLarge(packet) {
    const [entry] = this.#large;
    if (entry === undefined) return true;
    const part = entry.data.subarray(entry.at, entry.isWhole ? undefined : entry.at + packet.room - ROOM);
    if (packet.room < (entry.isWhole ? part.length : 2 * ROOM)) return false;
    entry.at += part.length;
    this.size -= part.length;
    const isLast = entry.at === entry.data.length;
    if (!entry.isWhole) packet.add(pieceHeader(isLast ? LAST_PIECE : PIECE, part.length));
    packet.add(part);
    if (isLast) this.#finishLarge(entry);
    return true;
  }

  #finishLarge(entry) {
    this.#large.shift();
    this.#leaveLane(entry);
    entry.onLeft?.();
  }

  #leaveLane(entry) {
    const others = this.#busy.get(entry.call) - 1;
    if (others > 0) this.#busy.set(entry.call, others);
    else this.#busy.delete(entry.call);
  }
}

/** An array of two: the type, and a bin of that size. */
function pieceHeader(type, size) {
  const header = Uint8Array.of(0x92, type, 0xc6, 0, 0, 0, 0);
  new DataView(header.buffer).setUint32(3, size);
  return header;
}

const WITHDRAWAL = Uint8Array.of(0x92, LAST_PIECE, 0xc4, 0);

class Packet {
  #parts = [];

  constructor(most) {
    this.most = this.room = most;
  }

  add(part) {
    this.#parts.push(part);
    this.room -= part.length;
  }

  joined() {
    if (this.#parts.length <= 1) return this.#parts[0] ?? null;
    const packet = new Uint8Array(this.most - this.room);
    let at = 0;
    for (const part of this.#parts) {
      packet.set(part, at);
      at += part.length;
    }
    return packet;
  }
}
