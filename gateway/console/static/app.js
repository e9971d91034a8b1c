// The frame: which view is shown, who calls, and the colours.

import { keyInUse, useKey } from "./api.js";
import * as chat from "./chat.js";
import { byId } from "./dom.js";
import * as health from "./health.js";
import * as memory from "./memory.js";
import * as route from "./route.js";

const VIEWS = { chat, route, memory, health };
const links = [...document.querySelectorAll("nav a")];

function show(name, { focus }) {
  for (const view of Object.keys(VIEWS)) byId(`view-${view}`).hidden = view !== name;
  for (const link of links) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = byId(`${name}-title`);
  document.title = `${title.textContent} - kiki`;
  if (focus) title.focus();
  health.watch(name === "health");
  VIEWS[name].enter?.();
}

function follow({ focus }) {
  const name = location.hash.slice(1);
  if (name in VIEWS) show(name, { focus });
  else if (!name) show("chat", { focus });
}

function callAgain() {
  chat.loadModels();
  health.look();
  const name = location.hash.slice(1);
  VIEWS[name]?.enter?.();
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
