/** Small helpers of the page. */

export const at = (selector, within = document) => within.querySelector(selector);

/** Makes an element. Its children are elements and texts, never markup: a text may contain anything. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Adds a line to the list of events. */
export function note(text, isBad = false) {
  const list = at("#events ol");
  const time = new Date().toLocaleTimeString();
  list.prepend(make("li", { className: isBad ? "bad" : "" }, make("time", {}, time), make("span", {}, text)));
  if (list.childElementCount > 100) list.lastElementChild.remove();
}
