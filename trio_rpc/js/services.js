/**
 * The functions that the other end may call. Only functions that were listed are found, in a Map that is made when
 * a service is registered: no name that arrives is looked up anywhere else (law 13).
 */

import { InvalidArguments } from "./errors.js";

const ENTRY = Symbol("entry");

export const METHOD = "method";
export const NOTIFICATION = "notification";
export const STREAM = "stream";
export const DUPLEX = "duplex";

const AsyncGeneratorFunction = (async function* () {}).constructor;

class Entry {
  takesCall = false;
  isStartable = false;
  isScope = false;
  parameters = null;

  constructor(run) {
    this.run = run;
    this.kind = run instanceof AsyncGeneratorFunction ? STREAM : METHOD;
  }

  /** Returns the arguments of the function. @throws {InvalidArguments} they do not fit */
  bind(args, kwargs) {
    if (this.parameters) return bind(this.parameters, args, kwargs);
    return kwargs && Object.keys(kwargs).length ? [...args, kwargs] : args;
  }
}

function marked(target, changes) {
  const entry = Object.assign(entryOf(target), changes);
  return Object.assign((...args) => entry.run(...args), { [ENTRY]: entry });
}

/** Returns a new entry of a function, or a copy of the entry of a marked one. */
export function entryOf(target) {
  if (typeof target !== "function") throw new TypeError("a method is a function");
  const entry = target[ENTRY];
  return entry ? Object.assign(new Entry(entry.run), entry) : new Entry(target);
}

/**
 * A method whose arguments are checked, and may be given by name.
 * @param {Record<string, string | ((value: any) => boolean)>} parameters names, with "?" behind
 *   optional ones, and types: "any", "string", "number", "integer", "boolean", "function", "stream",
 *   "object", "array", or a function that tells whether a value fits
 */
export const method = (run, parameters = null) => marked(run, parameters ? { parameters: read(parameters) } : {});
/** A one way method: nobody waits for it, and an error that it throws is logged here. */
export const notification = (run) => marked(run, { kind: NOTIFICATION });
/** A function that returns an async iterable. An async generator function is one without this. */
export const stream = (run) => marked(run, { kind: STREAM });
/** A function of `{ readable, writable }` and its arguments. */
export const duplex = (run) => marked(run, { kind: DUPLEX });
/** A function that gets its Call before its arguments: its signal, metadata and nested calls. */
export const withCall = (run) => marked(run, { takesCall: true });
/** As `withCall`; it calls `call.started(value)` once it is ready, and then goes on. */
export const startable = (run) => marked(run, { takesCall: true, isStartable: true });

const TYPES = {
  __proto__: null,
  any: () => true,
  string: (value) => typeof value === "string",
  number: (value) => typeof value === "number" || typeof value === "bigint",
  integer: (value) => Number.isInteger(value) || typeof value === "bigint",
  boolean: (value) => typeof value === "boolean",
  function: (value) => typeof value === "function",
  stream: (value) => typeof value?.[Symbol.asyncIterator] === "function",
  object: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  array: Array.isArray,
};

function read(parameters) {
  return Object.entries(parameters).map(([text, type]) => {
    const fits = typeof type === "function" ? type : TYPES[type];
    if (!fits) throw new TypeError(`${type} is not a type of a parameter`);
    return { name: text.replace(/\?$/, ""), isOptional: text.endsWith("?"), type, fits };
  });
}

function bind(parameters, args, kwargs) {
  if (args.length > parameters.length) throw new InvalidArguments(`there are ${parameters.length} parameters`);
  const left = new Map(Object.entries(kwargs ?? {}));
  const bound = parameters.map(({ name, isOptional, type, fits }, index) => {
    if (index < args.length && left.has(name)) throw new InvalidArguments(`${name} is given twice`, name);
    const isMissing = index >= args.length && !left.has(name);
    if (isMissing && !isOptional) throw new InvalidArguments(`${name} is missing`, name);
    const value = index < args.length ? args[index] : left.get(name);
    left.delete(name);
    if (!isMissing && !fits(value)) {
      throw new InvalidArguments(`${name} is not ${typeof type === "string" ? `of the type ${type}` : "valid"}`, name);
    }
    return value;
  });
  for (const name of left.keys()) throw new InvalidArguments(`there is no parameter ${name}`, name);
  return bound;
}

const NAME = /^[A-Za-z0-9_-]+$/;

/**
 * Makes the table of methods.
 * @param {Record<string, object>} services service names, and objects with the methods of each; the
 *   service "" has methods without a name in front
 */
export function buildTable(services = {}) {
  const table = new Map();
  for (const [service, methods] of Object.entries(services)) {
    if (service === "trio_rpc" || (service !== "" && !NAME.test(service))) {
      throw new TypeError(`${JSON.stringify(service)} cannot be the name of a service`);
    }
    const prototype = Object.getPrototypeOf(methods);
    if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
      throw new TypeError(
        `the service ${service} is not a plain object such as { show: (text) => page.show(text) }`,
      );
    }
    for (const [name, target] of Object.entries(methods)) {
      if (!NAME.test(name)) throw new TypeError(`${JSON.stringify(name)} cannot be the name of a method`);
      table.set(service === "" ? name : `${service}.${name}`, entryOf(target));
    }
  }
  const scope = new Entry(null);
  scope.isScope = true;
  table.set("trio_rpc.scope", scope);
  return table;
}
