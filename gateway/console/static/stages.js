// What each stage decided. What has no form of its own is listed as it came.

import { bar, make, pairs, part, table } from "./dom.js";
import { forget } from "./forget.js";

const FORMS = { route, mount, recall, infer, negotiate, antibias };

export function decided({ name, decision }, context) {
  const rest = { ...decision };
  const take = (key) => {
    const value = rest[key];
    delete rest[key];
    return value;
  };
  const formed = FORMS[name]?.(take, context) ?? [];
  const left = Object.entries(rest);
  return [formed, left.length ? pairs(left) : null];
}

function weights(caption, what, entries) {
  const rows = entries.map(([name, weight]) =>
    ({ cells: [name, part(weight), bar({ size: Math.min(Math.abs(weight), 1) })] }));
  return table(caption, [["Name"], [what, "number"], ["", "bar"]], rows);
}

function route(take) {
  const domains = Object.entries(take("domains") ?? {});
  return domains.length ? [weights("Active domains", "Probability", domains)] : [];
}

function mount(take) {
  const mix = Object.entries(take("adapters") ?? {});
  return [mix.length ? weights("Adapters", "Weight", mix) : make("p", {}, "The base, without an adapter.")];
}

function recall(take, context) {
  const [episodes, notes] = [take("episodes"), take("notes")];
  if (!episodes) return [];
  const told = [
    ...episodes.map((one) => ({ ...one, kind: "episode", text: one.user })),
    ...notes,
  ];
  if (!told.length) return [make("p", {}, "Nothing was recalled.")];
  return [make("ul", { class: "cards", "aria-label": "Recalled" }, told.map((one) => recalled(one, context)))];
}

function recalled(one, { user }) {
  const item = make("li", { "data-id": one.id },
    make("p", { class: "text" }, one.text),
    make("p", { class: "small" }, `${one.kind}, score ${part(one.score)}: ${one.reasons.join(", ")}`));
  const note = make("span", { role: "status" });
  const button = make("button", {
    type: "button",
    class: "danger",
    "aria-label": `Delete the ${one.kind}: ${one.text.slice(0, 60)}`,
    click: () => forget(one, user, item, note),
  }, "Delete");
  item.append(make("div", { class: "buttons" }, button, note));
  return item;
}

function infer(take) {
  const candidates = take("candidates") ?? [];
  const rows = candidates.map((one) => ({ cells: [one.adapters, one.tokens, one.finish_reason] }));
  return rows.length ? [table("Candidates", [["Written by"], ["Tokens", "number"], ["Ended by"]], rows)] : [];
}

function negotiate(take) {
  const [candidates, votes, winner] = [take("candidates"), take("votes") ?? [], take("winner") ?? []];
  if (!candidates) return [];
  const shown = candidates.map((one, place) => candidate(one, place, votes, winner));
  const [audits, catfish] = [take("audits") ?? [], take("catfish")];
  const rows = audits.map((one) => ({ cells: [one.bias, one.outcome, one.round, one.note] }));
  return [
    make("ol", { class: "cards", "aria-label": "Candidates" }, shown),
    rows.length ? table("Audits of the verdict", [["Bias"], ["Outcome"], ["Round", "number"], ["Note"]], rows) : null,
    catfish ? [make("h3", {}, "Dissent"), pairs(Object.entries(catfish))] : null,
  ];
}

function candidate(one, place, votes, winner) {
  const own = votes.filter((vote) => vote.candidate === place);
  const won = one.authors.join() === winner.join();
  const rows = own.map((vote) => ({ cells: [vote.specialist, vote.vote, vote.argument] }));
  return make("li", {},
    make("p", {}, make("strong", {}, one.authors.join(", ")), ` ${won ? "(chosen) " : ""}${one.tokens} tokens`),
    make("p", { class: "text" }, one.text),
    rows.length ? table("Votes", [["Specialist"], ["Vote"], ["Argument"]], rows) : make("p", { class: "small" }, "Nobody voted on it."));
}

function antibias(take) {
  const [findings, left] = [take("findings"), take("left")];
  if (!findings) return [];
  return [found("Found before", findings), found("Left after", left ?? [])];
}

function found(caption, findings) {
  if (!findings.length) return make("p", {}, `${caption}: nothing.`);
  const rows = findings.map((one) =>
    ({ cells: [one.type, make("mark", {}, one.span), part(one.confidence)] }));
  return table(caption, [["Bias"], ["Where"], ["Confidence", "number"]], rows);
}
