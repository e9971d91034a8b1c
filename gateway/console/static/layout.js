// Force-directed placement (Fruchterman and Reingold 1991), always the same for the same graph.

const STEPS = 250;
const GOLDEN = Math.PI * (3 - Math.sqrt(5));
const MARGIN = 24;

/** Puts `x` and `y` into the nodes; an edge names two places of them, `a` and `b`. */
export function layOut(nodes, edges, width, height) {
  const wanted = 0.75 * Math.sqrt((width * height) / Math.max(nodes.length, 1));
  nodes.forEach((node, place) => {
    const far = 0.45 * Math.sqrt((place + 0.5) / nodes.length);
    node.x = width * (0.5 + far * Math.cos(place * GOLDEN));
    node.y = height * (0.5 + far * Math.sin(place * GOLDEN));
  });
  for (let step = 0; step < STEPS; step += 1) {
    const most = (width / 10) * (1 - step / STEPS);
    move(nodes, forces(nodes, edges, wanted), most, width, height);
  }
}

function forces(nodes, edges, wanted) {
  const pull = nodes.map(() => ({ x: 0, y: 0 }));
  const add = (a, b, strength) => {
    const [x, y] = [nodes[b].x - nodes[a].x, nodes[b].y - nodes[a].y];
    const far = Math.max(Math.hypot(x, y), 0.1);
    const force = strength(far) / far;
    pull[a].x += x * force;
    pull[a].y += y * force;
    pull[b].x -= x * force;
    pull[b].y -= y * force;
  };
  for (let a = 0; a < nodes.length; a += 1) {
    for (let b = a + 1; b < nodes.length; b += 1) add(a, b, (far) => -(wanted ** 2) / far);
  }
  for (const { a, b } of edges) add(a, b, (far) => far ** 2 / wanted);
  return pull;
}

function move(nodes, pull, most, width, height) {
  nodes.forEach((node, place) => {
    const { x, y } = pull[place];
    const far = Math.max(Math.hypot(x, y), 0.1);
    const step = Math.min(far, most) / far;
    node.x = within(node.x + x * step, width);
    node.y = within(node.y + y * step, height);
  });
}

const within = (value, size) => Math.min(Math.max(value, MARGIN), size - MARGIN);
