// The memory browser: lists, search, edit, delete, and the graph of facts.

import { call } from "./api.js";
import { byId, make, pairs, part, say, time } from "./dom.js";
import { forget } from "./forget.js";
import { graph } from "./graph.js";

const PAGE = 20;
const GRAPH_FACTS = 60;
const [form, note, found, more, kind, lookedFor] =
  ["memory-form", "memory-note", "found", "more", "kind", "looked-for"].map(byId);
const user = () => byId("user").value;

let next = null;

/** The view was opened, or another caller is in it. */
export async function enter() {
  await Promise.all([list(), count(), drawFacts()]);
}

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    say(note, error.message, true);
    return null;
  }
}

function count() {
  return attempt(async () => {
    const one = await call("v1/memory/status", { query: { user: user() } });
    const lag = one.lag ? `, ${one.lag} not in the stores yet` : "";
    byId("memory-counts").textContent =
      `${one.episodes} episodes, ${one.facts} facts, ${one.summaries} summaries; ${one.state}${lag}.`;
  });
}

function list() {
  const q = lookedFor.value.trim();
  return attempt(async () => q ? search(q) : page(null));
}

async function page(after) {
  const query = { user: user(), kind: kind.value, limit: PAGE, after };
  const { data, has_more, next: following } = await call("v1/memory", { query });
  if (after === null) found.replaceChildren();
  found.append(...data.map(item));
  next = has_more ? following : null;
  more.hidden = next === null;
  say(note, found.children.length ? `${found.children.length} shown.` : "Nothing is remembered here yet.");
}

async function search(q) {
  const body = { q, limit: PAGE, ...(user() ? { user: user() } : {}) };
  const { data, notes } = await call("v1/memory/search", { method: "POST", body });
  const all = kind.value === "episodes" ? data : notes.filter((one) => one.object === OBJECTS[kind.value]);
  found.replaceChildren(...all.map(item));
  next = null;
  more.hidden = true;
  say(note, all.length ? `${all.length} found, the best first.` : "Nothing was found.");
}

function item(one) {
  const about = [];
  if (one.time) about.push(time(one.time));
  if (one.conversation) about.push(` in ${one.conversation}`);
  if (one.current === false) about.push("no longer current");
  if (one.score !== undefined) about.push(` score ${part(one.score)}: ${one.reasons.join(", ")}`);
  if (one.in_prompt) about.push("; chat would recall it");
  const box = make("li", { "data-id": one.id }, make("p", { class: "text" }, one.text),
    one.answer ? make("p", { class: "text small" }, one.answer) : null,
    make("p", { class: "small" }, about));
  const told = make("span", { role: "status" });
  const label = one.text.slice(0, 60);
  const buttons = make("div", { class: "buttons" });
  if (one.object === "memory.episode") {
    buttons.append(
      button("Learnt", `What was learnt from: ${label}`, (event) => learnt(one, box, event.target, told)),
      button("Edit", `Edit: ${label}`, () => edit(one, box)));
  }
  const remove = button("Delete", `Delete: ${label}`, async () => {
    if (await forget(one, user(), box, told)) await Promise.all([count(), drawFacts()]);
  });
  remove.className = "danger";
  buttons.append(remove, told);
  box.append(buttons);
  return box;
}

function button(text, label, click) {
  return make("button", { type: "button", "aria-label": label, click }, text);
}

async function learnt(one, box, opener, told) {
  try {
    const whole = await call(`v1/memory/${encodeURIComponent(one.id)}`, { query: { user: user() } });
    const facts = whole.facts.map((fact) => make("li", {}, fact.text, fact.current ? "" : " (no longer current)"));
    const lines = facts.length ? make("ul", {}, facts) : "nothing yet";
    const adapters = Object.entries(one.adapters).map(([name, weight]) => `${name} ${weight}`);
    opener.disabled = true;
    box.append(pairs([["Facts", lines], ["Summaries", whole.summaries.map((made) => made.text)],
      ["Domains", one.domains], ["Adapters", adapters], ["Status", one.status]]));
    say(told, `${facts.length} facts.`);
  } catch (error) {
    say(told, error.message, true);
  }
}

function edit(one, box) {
  const text = make("textarea", { rows: 3 });
  const answer = make("textarea", { rows: 3 });
  text.value = one.text;
  answer.value = one.answer;
  const told = make("span", { role: "status" });
  const back = (now) => {
    const fresh = item(now);
    box.replaceWith(fresh);
    fresh.querySelector("button").focus();
  };
  const save = async (event) => {
    event.preventDefault();
    try {
      const body = { text: text.value, answer: answer.value };
      const now = await call(`v1/memory/${encodeURIComponent(one.id)}`, { method: "PATCH", query: { user: user() }, body });
      back(now);
      say(note, "Saved.");
      drawFacts();
    } catch (error) {
      say(told, error.message, true);
    }
  };
  box.replaceChildren(make("form", { submit: save },
    make("label", {}, "What the user said", text),
    make("label", {}, "The answer", answer),
    make("div", { class: "buttons" }, make("button", { class: "first" }, "Save"),
      make("button", { type: "button", click: () => back(one) }, "Cancel"), told)));
  text.focus();
}

function drawFacts() {
  return attempt(async () => {
    const query = { user: user(), kind: "facts", limit: GRAPH_FACTS };
    const { data, has_more } = await call("v1/memory", { query });
    const place = byId("graph");
    if (!data.length) {
      place.replaceChildren(make("p", {}, "No fact has been learnt yet."));
      return;
    }
    place.replaceChildren(graph(data, lookFor),
      ...(has_more ? [make("p", { class: "hint" }, `The last ${GRAPH_FACTS} facts.`)] : []));
  });
}

function lookFor(text) {
  lookedFor.value = text;
  kind.value = "episodes";
  list().then(() => byId("found-title").focus());
}

const OBJECTS = { facts: "memory.fact", summaries: "memory.summary" };

form.addEventListener("submit", (event) => {
  event.preventDefault();
  list();
});
kind.addEventListener("change", list);
more.addEventListener("click", () => attempt(async () => {
  const first = found.children.length;
  await page(next);
  found.children[first]?.querySelector("button")?.focus();
}));
