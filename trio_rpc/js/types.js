/**
 * Reads the option `types`: classes that travel under a code of both ends, as a TypeRegistry of the
 * Python library does.
 *
 *     types: [{ code: 64, class: Point, write: (p) => [p.x, p.y], read: ([x, y]) => new Point(x, y) }]
 */
export function readTypes(types = []) {
  const [readers, writers] = [new Map(), new Map()];
  for (const { code, class: Class, write, read } of types) {
    if (!(Number.isInteger(code) && code >= 64 && code <= 127)) throw new TypeError("a type's code is 64 to 127");
    if (readers.has(code) || writers.has(Class)) throw new TypeError(`the type ${code} is given twice`);
    readers.set(code, read);
    writers.set(Class, { code, write });
  }
  return { readers, writers };
}
