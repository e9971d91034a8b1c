// Facts and what they are about as a graph. It is laid out once and stands still.

import { draw } from "./dom.js";
import { layOut } from "./layout.js";

const [WIDTH, HEIGHT] = [640, 520];
const MARGIN = 24;
const LABEL = 26;

/** `choose` is called with the text of the node that was chosen. */
export function graph(facts, choose) {
  const { nodes, edges } = network(facts);
  layOut(nodes, edges, WIDTH, HEIGHT, MARGIN);
  const lines = edges.map(({ a, b, kind }) =>
    draw("line", { class: kind, x1: nodes[a].x, y1: nodes[a].y, x2: nodes[b].x, y2: nodes[b].y }));
  const drawn = nodes.map((node, place) => shape(node, place === 0, () => choose(node.text)));
  const entities = nodes.length - facts.length;
  const picture = draw("svg", {
    class: "graph",
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "group",
    "aria-label": `${facts.length} facts and ${entities} names or quantities`,
    "aria-describedby": "graph-hint",
  }, lines, drawn);
  picture.addEventListener("keydown", (event) => walk(event, drawn));
  return picture;
}

function network(facts) {
  const nodes = facts.map((fact) => ({ kind: fact.current ? "fact" : "ended", text: fact.text, about: 0 }));
  const places = new Map(facts.map((fact, place) => [fact.id, place]));
  const names = new Map();
  const edges = [];
  facts.forEach((fact, place) => {
    for (const name of fact.entities) {
      if (!names.has(name)) names.set(name, nodes.push({ kind: "entity", text: name, about: 0 }) - 1);
      const entity = names.get(name);
      nodes[entity].about += 1;
      edges.push({ a: place, b: entity, kind: "about" });
    }
    for (const kind of ["supersedes", "conflicts"]) {
      for (const other of fact[kind]) {
        // A conflict stands at both of its facts, and is one line.
        const b = places.get(other);
        if (b !== undefined && (kind === "supersedes" || place < b)) edges.push({ a: place, b, kind });
      }
    }
  });
  return { nodes, edges };
}

const SAID = { fact: "Fact", ended: "Fact that is no longer current", entity: "Name or quantity" };

function shape({ kind, text, about, x, y }, first, chosen) {
  const mark = kind === "entity"
    ? draw("rect", { x: -6, y: -6, width: 12, height: 12, rx: 2 })
    : draw("circle", { r: 6 });
  const label = text.length > LABEL ? `${text.slice(0, LABEL - 1)}\u2026` : text;
  // At the right edge a label stands to the left of its mark.
  const left = x > WIDTH * 0.6;
  const count = kind === "entity" ? `, in ${about} facts` : "";
  const keyed = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    chosen();
  };
  return draw("g", {
    class: kind,
    transform: `translate(${x} ${y})`,
    role: "button",
    tabindex: first ? 0 : -1,
    "aria-label": `${SAID[kind]}: ${text}${count}`,
    click: chosen,
    keydown: keyed,
  }, draw("title", {}, text), mark,
    draw("text", { x: left ? -10 : 10, y: 4, "text-anchor": left ? "end" : "start" }, label));
}

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** One stop of the Tab key; the arrows go on from there. */
function walk(event, drawn) {
  const at = drawn.indexOf(event.target.closest("g"));
  const step = STEPS[event.key];
  if (at < 0 || !step) return;
  event.preventDefault();
  const to = drawn[(at + step + drawn.length) % drawn.length];
  drawn[at].setAttribute("tabindex", -1);
  to.setAttribute("tabindex", 0);
  to.focus();
}
