// Deletes one thing of the memory, wherever it is shown.

import { call } from "./api.js";
import { make, say, sure } from "./dom.js";

/** Asks, deletes, and takes the item's place with a line that says so. Whether it was deleted. */
export async function forget({ id, text }, user, item, note) {
  if (!await sure(`Delete this for good, with all that was learnt from it? ${text.slice(0, 200)}`)) return false;
  try {
    const { followed } = await call(`v1/memory/${encodeURIComponent(id)}`, { method: "DELETE", query: { user } });
    const line = followed ? "Deleted." : "Deleted from the journal; the stores follow when they are back.";
    const told = make("p", { role: "status", tabindex: "-1" }, line);
    item.replaceChildren(told);
    told.focus();
    return true;
  } catch (error) {
    say(note, error.message, true);
    return false;
  }
}
