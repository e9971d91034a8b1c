// Force-directed placement (Fruchterman and Reingold 1991), always the same for the same graph.

const STEPS = 250;
const GOLDEN = Math.PI * (3 - Math.sqrt(5));
const DISTANCE = 1;
/** Holds together what no edge does. */
const GRAVITY = 0.15;

/** Puts `x` and `y` into the nodes, `margin` from the edges; an edge names two places of them,
 * `a` and `b`. */
export function layOut(nodes, edges, width, height, margin) {
  nodes.forEach((node, place) => {
    const far = Math.sqrt(place + 0.5);
    node.x = far * Math.cos(place * GOLDEN);
    node.y = far * Math.sin(place * GOLDEN);
  });
  for (let step = 0; step < STEPS; step += 1) {
    move(nodes, forces(nodes, edges), DISTANCE * (1 - step / STEPS));
  }
  fit(nodes, "x", width, margin);
  fit(nodes, "y", height, margin);
}

function forces(nodes, edges) {
  const pull = nodes.map((node) => ({ x: -node.x * GRAVITY, y: -node.y * GRAVITY }));
  const add = (a, b, strength) => {
    const [x, y] = [nodes[b].x - nodes[a].x, nodes[b].y - nodes[a].y];
    const far = Math.max(Math.hypot(x, y), 0.01);
    const force = strength(far) / far;
    pull[a].x += x * force;
    pull[a].y += y * force;
    pull[b].x -= x * force;
    pull[b].y -= y * force;
  };
  for (let a = 0; a < nodes.length; a += 1) {
    for (let b = a + 1; b < nodes.length; b += 1) add(a, b, (far) => -(DISTANCE ** 2) / far);
  }
  for (const { a, b } of edges) add(a, b, (far) => far ** 2 / DISTANCE);
  return pull;
}

function move(nodes, pull, most) {
  nodes.forEach((node, place) => {
    const { x, y } = pull[place];
    const far = Math.max(Math.hypot(x, y), 0.01);
    const step = Math.min(far, most) / far;
    node.x += x * step;
    node.y += y * step;
  });
}

function fit(nodes, axis, size, margin) {
  const values = nodes.map((node) => node[axis]);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  for (const node of nodes) {
    const at = most > least ? (node[axis] - least) / (most - least) : 0.5;
    node[axis] = margin + at * (size - 2 * margin);
  }
}
