// The route explorer: every probability behind a decision.

import { call } from "./api.js";
import { bar, byId, make, pairs, part, say, table } from "./dom.js";

const [form, prompt, note, routed] = ["route-form", "prompt", "route-note", "routed"].map(byId);

async function explore() {
  const query = prompt.value.trim();
  if (!query) {
    say(note, "Write a prompt first.");
    return;
  }
  const body = { query, explain: true, top_k: byId("top-k").valueAsNumber || 4 };
  const threshold = byId("threshold").valueAsNumber;
  if (threshold) body.threshold = threshold;
  try {
    show(await call("v1/route", { method: "POST", body }));
  } catch (error) {
    routed.replaceChildren();
    say(note, error.message, true);
  }
}

function show({ domains, fallback, explain: why }) {
  const names = domains.map((one) => one.name).join(", ");
  say(note, fallback ? "No domain is active: the base answers." : `Active: ${names}.`);
  const active = new Set(domains.map((one) => one.name));
  const scores = why.scores.toSorted((a, b) => b.score - a.score).map(({ name, score }) => ({
    kind: active.has(name) ? "on" : null,
    cells: [name, part(score), bar({ size: score }), active.has(name) ? "active" : ""],
  }));
  const shares = why.shares.map((one) => ({ cells: [one.name, one.member, part(one.weight)] }));
  const near = why.nearest.map((one) => ({ cells: [one.prompt, one.domains.join(", "), part(one.similarity)] }));
  routed.replaceChildren(
    pairs([
      ["About a domain", `${part(why.in_domain)} (from ${part(why.scope_threshold)} on)`],
      ["Threshold", part(why.threshold)],
      ["Confidence", `${part(why.confidence)}${why.clear ? ", clear" : ""}`],
      ["Advised", why.advised],
    ]),
    make("div", { class: "columns" },
      table("Probabilities", [["Domain"], ["Probability", "number"], ["", "bar"], ["State"]], scores),
      make("div", {},
        shares.length ? table("Shares of the answer", [["Domain"], ["Meant"], ["Weight", "number"]], shares) : "",
        table("Nearest prompts that the router learnt from", [["Prompt"], ["Domains"], ["Cosine", "number"]], near))));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  explore();
});
