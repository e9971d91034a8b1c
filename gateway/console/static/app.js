// The frame: which view is shown, who calls, and the colours.

import { keyInUse, useKey } from "./api.js";
import * as chat from "./chat.js";
import { byId } from "./dom.js";
import * as health from "./health.js";
import * as memory from "./memory.js";
import "./route.js";

const VIEWS = ["chat", "route", "memory", "health"];
const links = [...document.querySelectorAll("nav a")];

function show(name, { focus }) {
  for (const view of VIEWS) byId(`view-${view}`).hidden = view !== name;
  for (const link of links) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = byId(`${name}-title`);
  document.title = `${title.textContent} - kiki`;
  if (focus) title.focus();
  health.watch(name === "health");
  if (name === "memory") memory.enter();
}

function follow({ focus }) {
  const name = location.hash.slice(1);
  if (VIEWS.includes(name)) show(name, { focus });
  // Else it is the link that skips to the content.
  else if (!document.querySelector("nav a[aria-current]")) show("chat", { focus: false });
}

function callAgain() {
  chat.loadModels();
  health.look();
  if (!byId("view-memory").hidden) memory.enter();
}

function remember(field, kept) {
  field.value = kept.getItem(`kiki-${field.id}`) ?? "";
  field.addEventListener("change", () => kept.setItem(`kiki-${field.id}`, field.value));
}

const [key, user, theme] = ["key", "user", "theme"].map(byId);
key.value = keyInUse();
key.addEventListener("change", () => {
  useKey(key.value);
  callAgain();
});
byId("caller-form").addEventListener("submit", (event) => event.preventDefault());
remember(user, sessionStorage);
user.addEventListener("change", () => {
  chat.begin();
  callAgain();
});
remember(theme, localStorage);
const paint = () => { document.documentElement.dataset.theme = theme.value; };
theme.addEventListener("change", paint);
paint();

document.addEventListener("key-needed", () => { byId("caller").open = true; });
window.addEventListener("hashchange", () => follow({ focus: true }));
follow({ focus: false });
chat.loadModels();
