// The seven stages of an answer, one under another, each where its time lies.

import { bar, make, ms } from "./dom.js";
import { decided } from "./stages.js";

/** `context` says whose memory what was recalled is in. */
export function timeline(kiki, context) {
  const all = kiki.stages.reduce((sum, stage) => sum + stage.ms, 0) || 1;
  let from = 0;
  const items = kiki.stages.map((stage) => {
    const item = row(stage, from / all, stage.ms / all, context);
    from += stage.ms;
    return item;
  });
  return make("div", {},
    make("ol", { class: "timeline", "aria-label": "Stages" }, items),
    make("p", { class: "small" }, `Of all this, ${ms(kiki.gateway_ms)} were the gateway's own; pale is waiting for a model or a store.`),
    make("p", { class: "small" }, spent(kiki.usage)));
}

function row(stage, from, size, context) {
  const waited = stage.ms ? Math.min(stage.waited_ms / stage.ms, 1) * size : 0;
  const title = `${ms(stage.ms)}, of which ${ms(stage.waited_ms)} waiting`;
  const details = make("details", { class: "stage", "data-stage": stage.name },
    make("summary", { title },
      make("span", {}, stage.name),
      bar({ from, size }, { from, size: waited, kind: "waited" }),
      make("span", { class: "ms" }, ms(stage.ms))),
    make("div", {}, decided(stage, context)));
  return make("li", {}, details);
}

function spent(usage) {
  const parts = Object.entries(usage).map(([name, tokens]) =>
    `${name} ${tokens.prompt_tokens} + ${tokens.completion_tokens}`);
  return `Tokens, prompt + answer: ${parts.join("; ") || "none"}.`;
}
