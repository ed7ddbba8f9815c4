// Elements without markup in strings: nothing that comes from outside is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function add(element, children) {
  for (const child of children.flat(9)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

function set(element, properties) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  return element;
}

/** An HTML element with attributes (`onclick` and the like are listeners) and children. */
export const el = (tag, properties, ...children) => add(set(document.createElement(tag), properties), children);

/** An SVG element. */
export const svg = (tag, properties, ...children) => add(set(document.createElementNS(SVG, tag), properties), children);

/** Puts these in place of whatever is in `element`. */
export function fill(element, ...children) {
  element.replaceChildren();
  return add(element, children);
}

const ICONS = {
  ok: "M5 12.5l4.5 4.5L19 7.5",
  wait: "M12 6.5V12l3.5 2.5M12 3a9 9 0 100 18 9 9 0 000-18z",
  none: "M6 12h12",
  bad: "M7 7l10 10M17 7L7 17",
  warn: "M12 4l9 16H3zM12 10v4.5M12 17.2v.3",
  stop: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 017 0v3",
};

/** A drawn sign; words beside it say the same. */
export const icon = (name) =>
  svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, svg("path", { d: ICONS[name] }));

/** A card with a heading. */
export const card = (title, ...children) => el("section", { class: "card" }, el("h2", null, title), children);

/** Names and values in two columns; pairs without a value are left out. */
export const pairs = (...rows) =>
  el("dl", { class: "pairs" }, rows.filter((row) => row && row[1] !== null && row[1] !== undefined)
    .map(([name, value]) => [el("dt", null, name), el("dd", null, value)]));

/** A button. */
export const button = (words, onclick, kind = "plain") => el("button", { type: "button", class: kind, onclick }, words);

/** A label over an input, which has an id. */
export function field(words, input, hint) {
  const id = input.id;
  if (hint) input.setAttribute("aria-describedby", `${id}-hint`);
  return el("div", { class: "field" }, el("label", { for: id }, words), hint && el("p", { class: "hint", id: `${id}-hint` }, hint), input);
}

/** Something that went wrong, told at once to whoever cannot see it. */
export const complaint = (words) => el("p", { class: "complaint", role: "alert" }, icon("warn"), el("span", null, words));

/** Tells a screen reader what has changed. */
export function say(words) {
  document.getElementById("say").textContent = words;
}

/** A table; the first cell of each row names it. */
export const table = (caption, heads, rows) =>
  el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    el("table", null, el("caption", { class: "hidden-words" }, caption),
      el("thead", null, el("tr", null, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", null, rows.map((cells) => el("tr", null,
        cells.map((cell, at) => (at === 0 ? el("th", { scope: "row" }, cell) : el("td", null, cell))))))));

/** Offers bytes as a file. */
export function download(name, bytes, type) {
  const address = URL.createObjectURL(new Blob([bytes], { type }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
