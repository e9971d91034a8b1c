// How the gateway is, asked again and again while the page is seen.

import { call } from "./api.js";
import { byId, make, pairs, table } from "./dom.js";

const [WATCHED_MS, ELSE_MS] = [3_000, 30_000];
const [badge, healthy] = ["state", "healthy"].map(byId);

let watched = false;
let timer = 0;

/** The view is open: look now, and more often. */
export function watch(open) {
  watched = open;
  look();
}

export async function look() {
  clearTimeout(timer);
  try {
    const health = await call("health", { also: [503] });
    state(health.status);
    if (watched) show(health);
  } catch (error) {
    state(error.status === 401 ? "key needed" : "unavailable");
    if (watched) healthy.replaceChildren(make("p", { class: "error" }, error.message));
  }
  clearTimeout(timer);
  timer = setTimeout(tick, watched ? WATCHED_MS : ELSE_MS);
}

function tick() {
  if (document.hidden) timer = setTimeout(tick, WATCHED_MS);
  else look();
}

/** A screen reader hears the badge when it changes. */
function state(text) {
  if (badge.textContent === text) return;
  badge.textContent = text;
  badge.dataset.state = text;
}

function show({ status, components, memory, adapters, adapters_refused: refused, uptime_s: up }) {
  const { engine, router } = components;
  const circuits = Object.entries(engine.circuits).map(([server, state]) => ({ cells: [server, state] }));
  const left = Object.entries(refused).map(([name, reason]) => ({ cells: [name, reason] }));
  healthy.replaceChildren(make("div", { class: "columns" },
    card("Gateway", [["Status", status], ["Up for", uptime(up)], ["Router", `${router.state}, ${router.outputs} domains`]]),
    card("Engine", [["State", engine.state], ["Generates", engine.ready], ["Engine", engine.name],
      ["Base", engine.model], ["Chosen because", engine.reason],
      ...(circuits.length ? [] : [["Circuit breakers", null]])],
    circuits.length ? table("Circuit breakers", [["Server"], ["State"]], circuits) : null),
    card("Memory", [["State", memory.state], ["Episodes", memory.episodes], ["Not in the stores yet", memory.lag],
      ["Last error of the stores", memory.last_error], ["Not decided yet", memory.cerebellum.lag],
      ["Last error of the cerebellum", memory.cerebellum.last_error],
      ["Decided by", Object.entries(memory.cerebellum.decisions).map(([who, n]) => `${who} ${n}`)]]),
    card("Adapters", [["Loaded", adapters]],
      left.length ? table("Left out", [["Adapter"], ["Why"]], left) : null)));
}

function card(title, entries, more = null) {
  return make("section", { class: "card" }, make("h2", {}, title), pairs(entries), more);
}

function uptime(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
