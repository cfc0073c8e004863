/**
 * The protocol of one session, without I/O: packets in, events out; verbs in, packets out.
 *
 * The two directions of a session are its two halves, each in one of the states below. A message is
 * illegal to receive exactly if it was illegal to send. Everything that arrives is checked here;
 * the session that gets the events trusts them.
 */

import { Decoder } from "./decoder.js";
import { Encoder } from "./encoder.js";
import { shown } from "./error_maps.js";
import {
  DecodeError, LocalProtocolError, Refused, RemoteProtocolError,
} from "./errors.js";
import * as m from "./messages.js";
import { Outbox } from "./outbox.js";

export const SILENT = 0;
export const GREETED = 1;
export const OPEN = 2;
export const LEAVING = 3;
export const ENDED = 4;

/** Queued bytes above which calls, notifications and items wait. */
export const SEND_BUFFER = 4 * 1024 * 1024;
/** Queued bytes above which a result is replaced by an error. */
export const MAX_UNSENT = 32 * 1024 * 1024;
const MAX_DEPTH_OF_CALLS = 64;
const FIRST_PACKET = 16_384;
const HELLO_SIZE = FIRST_PACKET - 32;

export const DEFAULT_LIMITS = Object.freeze({
  maxCalls: 1024,
  maxNotifications: 1024,
  maxMessage: 16 * 1024 * 1024,
  maxPacket: 256 * 1024,
  maxDepth: 64,
  maxNodes: 250_000,
});

const NO_ITEMS = "a call without Items";

/** A count of Items and of their bytes that may still pass, in one direction of one call. */
export class Window {
  constructor([items, bytes]) {
    this.items = this.mostItems = items;
    this.bytes = this.mostBytes = bytes;
  }

  get isOpen() {
    return this.items > 0 && this.bytes > 0;
  }

  use(size) {
    if (!this.isOpen) throw new DecodeError("an Item without credit");
    this.items--;
    this.bytes -= size;
  }

  give(count, bytes) {
    this.items += count;
    this.bytes += bytes;
    if (this.items > this.mostItems || this.bytes > this.mostBytes) {
      throw new DecodeError("too much credit");
    }
  }
}

export class Protocol {
  #limits;
  #types;
  #decoder;
  #encoder;
  #outbox = new Outbox();
  #peer = { maxCalls: 0, maxMessage: HELLO_SIZE, maxDepth: 64, maxNodes: 250_000 };
  #lastId = 0;
  #lastPing = 0;
  #pieces = [];
  #piecesSize = 0;
  #grantedNotifications;
  #credits = 0;
  /** Notifications that may still be sent. */
  notificationCredit = 0;
  ours = SILENT;
  theirs = SILENT;
  /** Calls that this end has made, until their terminal message: id to a record of the session. */
  outgoing = new Map();
  /** Calls that this end serves, until their terminal message has left: id to a record. */
  incoming = new Map();

  /** The function that handles each type of message. */
  #actions = {
    [m.REQUEST]: this.#acceptRequest,
    [m.NOTIFICATION]: this.#acceptNotification,
    [m.REPLY]: this.#acceptTerminal,
    [m.REPLY_ERR]: this.#acceptTerminal,
    [m.CANCEL]: (message, on) => on.cancel(message),
    [m.HELLO]: this.#acceptHello,
    [m.WELCOME]: (_, on) => on.welcome(),
    [m.GOODBYE]: (message, on) => on.goodbye(message),
    [m.PING]: this.#acceptPing,
    [m.PONG]: this.#acceptPong,
    [m.CREDIT]: this.#acceptCredit,
    [m.PIECE]: this.#acceptPiece,
    [m.LAST_PIECE]: this.#acceptPiece,
    [m.ITEM]: this.#acceptItem,
    [m.END_OF_ITEMS]: this.#acceptEndOfItems,
    [m.STARTED]: this.#acceptStarted,
  };

  /**
   * @param {typeof DEFAULT_LIMITS} limits of this end
   * @param {{readers: Map<number, Function>, writers: Map<Function, any>}} types registered types
   */
  constructor(limits, types) {
    this.#limits = limits;
    this.#types = types;
    this.#decoder = new Decoder(limits, types.readers);
    this.#encoder = new Encoder(types.writers);
    this.#grantedNotifications = limits.maxNotifications;
  }

  // ── receiving ──

  /**
   * Acts on a packet, and yields after each message, so that its user may pause there. `on` has a method for
   * each event; a record is the object that the session put into `outgoing` or `incoming`.
   * @throws {RemoteProtocolError | Refused} the other half has then ENDED
   */
  *receive(packet, on) {
    try {
      if (packet.length === 0 || packet.length > this.#limits.maxPacket) {
        throw new DecodeError(`a packet of ${packet.length} bytes`);
      }
      this.#decoder.load(packet);
      if (this.theirs === SILENT) this.#checkVersion();
      while (!this.#decoder.isDone && this.theirs !== ENDED) {
        this.#accept(m.parse(this.#decoder, on.refer), on);
        yield;
      }
    } catch (error) {
      if (error instanceof Refused) this.theirs = ENDED;
      if (!(error instanceof DecodeError)) throw error;
      this.theirs = ENDED;
      throw new RemoteProtocolError(`the other end broke the protocol: ${error.message}`, { cause: error });
    }
  }

  #checkVersion() {
    const version = m.helloVersion(this.#decoder);
    this.#decoder.at = 0;
    if (version !== null && version !== m.VERSION) {
      throw new Refused(`this end speaks version ${m.VERSION} of the protocol, the other end version ${version}`);
    }
  }

  #accept(message, on) {
    if (message.size > this.#limits.maxMessage) throw new DecodeError("a message is too large");
    this.theirs = step(this.theirs, this.ours, message.type);
    this.#actions[message.type].call(this, message, on);
  }

  #acceptHello(message, on) {
    const { info } = message;
    const peer = {};
    for (const [key, [field, least]] of Object.entries(m.NUMBERS)) {
      peer[field] = info[key];
      if (!(Number.isSafeInteger(info[key]) && info[key] >= least)) {
        throw new Refused(`Hello states no valid ${key}`);
      }
    }
    if (message.unreadable) throw new Refused("Hello cannot be read");
    const codes = [...this.#types.readers.keys()].sort((a, b) => a - b);
    const { tags = [], codec = ["msgpack", 1] } = info;
    const same = Array.isArray(tags) && tags.every(Number.isInteger) && `${tags.sort((a, b) => a - b)}` === `${codes}`;
    if (!same) throw new Refused(`this end has the types [${codes}], the other end [${shown(tags)}]`);
    const [name, version, ...more] = Array.isArray(codec) ? codec : [];
    if (name !== "msgpack" || version !== 1 || more.length) {
      throw new Refused(`this end has the codec msgpack,1, the other end ${shown(codec)}`);
    }
    this.#peer = peer;
    this.notificationCredit = peer.maxNotifications;
    this.#outbox.maxPacket = Math.min(this.#limits.maxPacket, peer.maxPacket);
    on.hello(info);
  }

  #acceptRequest(request, on) {
    const { id, context } = request;
    if (this.incoming.has(id)) throw new DecodeError(`the id ${id} is in flight`);
    if (this.incoming.size >= this.#limits.maxCalls) throw new DecodeError("too many calls");
    this.incoming.set(id, null);
    if (this.#isLate(context)) {
      this.replyError(id, { code: "unavailable", message: "the other end is closing" });
    } else if (context.depth > MAX_DEPTH_OF_CALLS) {
      this.replyError(id, { code: "overloaded", message: "calls are nested too deeply" });
    } else {
      on.request(request);
    }
  }

  /** Tells whether a call crossed a Goodbye: then only calls within a call are served. */
  #isLate(context) {
    if (this.ours === OPEN && this.theirs === OPEN) return false;
    if (this.outgoing.has(context.parent)) return false;
    if (this.theirs !== OPEN && context.parent === undefined) {
      throw new DecodeError("a call after Goodbye");
    }
    return true;
  }

  #acceptNotification(message, on) {
    if (this.#grantedNotifications === 0) throw new DecodeError("a Notification without credit");
    this.#grantedNotifications--;
    if (this.#isLate(message.context)) this.grantNotification();
    else on.notification(message);
  }

  /** @returns the record of the call that a message belongs to */
  #callOf(message) {
    const call = this.outgoing.get(message.id);
    if (call === undefined) throw new DecodeError(`call ${message.id} is not in flight`);
    return call;
  }

  #acceptTerminal(message, on) {
    const call = this.#callOf(message);
    this.outgoing.delete(message.id);
    on.terminal(call, message);
  }

  #acceptItem(message, on) {
    const call = this.#callOf(message);
    if (!call.window) throw new DecodeError(NO_ITEMS);
    call.window.use(message.size);
    on.item(call, message);
  }

  #acceptEndOfItems(message, on) {
    const call = this.#callOf(message);
    if (!call.window) throw new DecodeError(NO_ITEMS);
    call.window = null;
    on.endOfItems(call);
  }

  #acceptStarted(message, on) {
    const call = this.#callOf(message);
    if (!call.awaitsStarted) throw new DecodeError("a Started that is not expected");
    call.awaitsStarted = false;
    on.started(call, message);
  }

  #acceptCredit({ id, count, bytes }, on) {
    if (id !== null) {
      const call = this.incoming.get(id);
      if (!call?.window) return; // it has ended, or has no Items
      call.window.give(count, bytes);
      return on.credit(call);
    }
    this.notificationCredit += count;
    if (this.notificationCredit > this.#peer.maxNotifications) {
      throw new DecodeError("too much credit");
    }
    on.notificationCredit();
  }

  #acceptPing({ number }) {
    if (LEGAL[this.ours].has(m.PONG)) this.#outbox.putPong(number);
  }

  #acceptPong({ number }, on) {
    if (number <= this.#lastPing) on.pong(number);
  }

  #acceptPiece({ type, data }, on) {
    if (data.length === 0) { // a LastPiece: it withdraws the message
      if (!this.#pieces.length) throw new DecodeError("a LastPiece of nothing");
      this.#pieces = [];
      this.#piecesSize = 0;
      return;
    }
    this.#pieces.push(data);
    this.#piecesSize += data.length;
    if (this.#piecesSize > this.#limits.maxMessage) throw new DecodeError("a message is too large");
    if (type === m.LAST_PIECE) this.#acceptWhole(on);
  }

  #acceptWhole(on) {
    const whole = new Uint8Array(this.#piecesSize);
    this.#pieces.reduce((at, piece) => (whole.set(piece, at), at + piece.length), 0);
    this.#pieces = [];
    this.#piecesSize = 0;
    const decoder = new Decoder(this.#limits, this.#types.readers);
    decoder.load(whole);
    const message = m.parse(decoder, on.refer);
    if (!decoder.isDone) throw new DecodeError("not one message in pieces");
    if (!m.IN_PIECES.has(message.type)) throw new DecodeError(`type ${message.type} in pieces`);
    this.#accept(message, on);
  }

  // ── sending ──

  /** Returns the next packet to write, or null. */
  nextPacket() {
    if (this.#credits) {
      const data = this.#encode([m.CREDIT, this.#credits]);
      this.#credits = 0;
      this.#outbox.put(data);
    }
    return this.#outbox.nextPacket(this.#encode);
  }

  get hasData() {
    return this.#credits > 0 || !this.#outbox.isEmpty;
  }

  get hasRoom() {
    return this.#outbox.size < SEND_BUFFER;
  }

  get hasCallCredit() {
    return this.outgoing.size < this.#peer.maxCalls;
  }

  /** Whether this end may make calls that are not within another one. */
  get isOpen() {
    return this.ours === OPEN && this.theirs === OPEN;
  }

  #encode = (fields, refer) => this.#encoder.encode(fields, this.#peer, refer);

  #send(type, fields, about) {
    const data = this.#encode([type, ...fields]);
    this.ours = step(this.ours, this.theirs, type, LocalProtocolError);
    this.#outbox.put(data, about);
    return data.length;
  }

  hello(credentials, session) {
    const info = {};
    for (const [key, [field]] of Object.entries(m.NUMBERS)) info[key] = this.#limits[field];
    const tags = [...this.#types.readers.keys()];
    Object.assign(info, { session, credentials }, tags.length ? { tags } : {});
    this.#send(m.HELLO, [m.VERSION, info]);
  }

  welcome() {
    this.#send(m.WELCOME, []);
  }

  goodbye(code, message = "") {
    const data = this.#encode([m.GOODBYE, code, forPeople(message, 1000)]);
    this.ours = step(this.ours, this.theirs, m.GOODBYE, LocalProtocolError);
    this.#outbox.putGoodbye(data);
  }

  /**
   * Queues a Request of a record, and returns its id.
   * @throws {EncodeError} it cannot be sent; no id is used
   */
  request(record, method, args, kwargs, context, refer) {
    if (!this.isOpen) this.#checkMayCall(context);
    if (context?.metadata) this.#encode([context.metadata]); // only arguments may be functions
    const id = this.#lastId + 1;
    const fields = [m.REQUEST, id, method, args, kwargs, context];
    const data = this.#encode(fields.slice(0, context ? 6 : kwargs ? 5 : 4), refer);
    this.#lastId = id;
    this.outgoing.set(id, record);
    this.#outbox.put(data, { begins: id });
    return id;
  }

  #checkMayCall(context) {
    if (this.ours === ENDED || this.theirs === ENDED || !this.incoming.has(context?.parent)) {
      throw new LocalProtocolError("an end is leaving: only calls within calls begin");
    }
  }

  /** Withdraws a Request that has not left, or only in part. Tells whether it has. */
  withdraw(id) {
    if (!this.#outbox.withdraw(id)) return false;
    this.outgoing.delete(id);
    return true;
  }

  notify(method, args, kwargs, context) {
    if (!this.isOpen) this.#checkMayCall(context);
    const data = this.#encode([m.NOTIFICATION, method, args, ...(context ? [kwargs, context] : kwargs ? [kwargs] : [])]);
    this.notificationCredit--;
    this.#outbox.put(data, { begins: 0 });
  }

  /** Gives back the credit of a Notification. */
  grantNotification() {
    this.#grantedNotifications++;
    this.#credits++;
  }

  cancel(id, reason) {
    this.#send(m.CANCEL, reason ? [id, forPeople(reason, 1000)] : [id]);
  }

  reply(id, result) {
    if (this.#outbox.size > MAX_UNSENT) {
      const message = "too many bytes wait: the answer was dropped";
      return this.replyError(id, { code: "overloaded", message, started: true });
    }
    this.#answer(id, m.REPLY, result);
  }

  replyError(id, error) {
    this.#answer(id, m.REPLY_ERR, { ...error, message: forPeople(error.message, 10_000) });
  }

  #answer(id, type, value) {
    this.#send(type, [id, value], { call: id, onLeft: () => this.incoming.delete(id) });
  }

  item(id, window, value) {
    const data = this.#encode([m.ITEM, id, value]);
    window.use(data.length);
    this.#outbox.put(data, { call: id });
  }

  endOfItems(id) {
    this.#send(m.END_OF_ITEMS, [id], { call: id });
  }

  started(id, value) {
    this.#send(m.STARTED, [id, value], { call: id });
  }

  credit(id, count, bytes) {
    this.#send(m.CREDIT, [count, id, bytes]);
  }

  ping() {
    this.#send(m.PING, [++this.#lastPing]);
    return this.#lastPing;
  }
}

// The tables of section 4: the messages that a half may send, and the messages that must not be sent to it.
const ALWAYS = [m.PING, m.PONG, m.GOODBYE];
const WITHIN = [
  m.REQUEST, m.NOTIFICATION, m.REPLY, m.REPLY_ERR, m.CANCEL, m.CREDIT, m.PIECE, m.LAST_PIECE,
  m.ITEM, m.END_OF_ITEMS, m.STARTED,
];
const LEGAL = [
  new Set([m.HELLO, m.GOODBYE]),
  new Set([m.WELCOME, ...ALWAYS]),
  new Set([...ALWAYS, ...WITHIN]),
  new Set([m.PING, m.PONG, ...WITHIN]),
  new Set(),
];
const REFUSED_BY = [new Set(WITHIN), new Set(WITHIN), new Set(), new Set(), new Set([m.REQUEST, m.NOTIFICATION])];

/** Returns the state of a half after it has sent a message. */
function step(sender, receiver, type, Fault = DecodeError) {
  if (!LEGAL[sender].has(type) || REFUSED_BY[receiver].has(type)) {
    throw new Fault(`type ${type} is not allowed now`);
  }
  if (type === m.HELLO) return GREETED;
  if (type === m.WELCOME) return OPEN;
  if (type === m.GOODBYE) return sender === OPEN ? LEAVING : ENDED;
  return sender;
}

/** Shortens a text to so many characters, and makes it one that can be sent. */
export function forPeople(text, most) {
  const short = text.length > most ? [...text.slice(0, 2 * most)].slice(0, most).join("") : text;
  return short.toWellFormed();
}

