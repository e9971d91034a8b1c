// Elements made of data. Text goes in as text nodes alone, so that none of it is ever markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element; properties that are null are left out, a function is a listener. */
export function make(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same in SVG. */
export function draw(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A bar from `from` to `from + size`, both parts of 1; what it says stands beside it as text. */
export function bar(...parts) {
  const track = make("div", { class: "track", "aria-hidden": "true" });
  for (const { from = 0, size, kind = null } of parts) {
    const part = make("i", { class: kind });
    part.style.setProperty("--from", `${from * 100}%`);
    part.style.setProperty("--size", `${size * 100}%`);
    track.append(part);
  }
  return track;
}

/** A table whose first column heads its rows; columns are [title, class]. */
export function table(caption, columns, rows) {
  const head = columns.map(([title, kind]) => title
    ? make("th", { scope: "col", class: kind }, title)
    : make("td", { class: kind }));
  const body = rows.map(({ cells, kind = null }) =>
    make("tr", { class: kind }, cells.map((cell, place) => place
      ? make("td", { class: columns[place][1] }, cell)
      : make("th", { scope: "row" }, cell))));
  return make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, head)), make("tbody", {}, body));
}

/** A list of names and values. */
export function pairs(entries) {
  return make("dl", {}, entries.map(([name, value]) =>
    [make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, shown(value))]));
}

function shown(value) {
  if (value instanceof Node) return value;
  if (value === null || value === undefined || value === "") return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) {
    return value.join(", ") || "none";
  }
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Puts a line where screen readers hear it. */
export function say(place, text, failed = false) {
  place.classList.toggle("error", failed);
  place.textContent = text;
}

/** Asks before something is deleted; whether to go on. */
export function sure(text) {
  const dialog = byId("sure");
  byId("sure-text").textContent = text;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

for (const button of byId("sure").querySelectorAll("button")) {
  button.addEventListener("click", () => byId("sure").close(button.value));
}

export const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
export const part = (value) => value.toFixed(3);
export const time = (text) => make("time", { datetime: text }, new Date(text).toLocaleString());
