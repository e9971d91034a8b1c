// Chat: the conversation, what streams in, and under each answer how it came about.

import { call, stream } from "./api.js";
import { byId, make, ms, say } from "./dom.js";
import { timeline } from "./timeline.js";

const [form, question, said, note, stop] = ["ask", "question", "said", "chat-note", "stop"].map(byId);

let conversation;
let messages;
let running = null;

/** An empty page, and a conversation that nothing was said in. */
export function begin() {
  running?.abort();
  conversation = `console-${Array.from(crypto.getRandomValues(new Uint32Array(2)), (part) => part.toString(36)).join("")}`;
  messages = [];
  said.replaceChildren();
  say(note, "");
}

export async function loadModels() {
  const model = byId("model");
  const chosen = model.value;
  try {
    const { data } = await call("v1/models");
    model.replaceChildren(...data.map(({ id }) => make("option", { selected: id === chosen }, id)));
    if (note.classList.contains("error")) say(note, "");
  } catch (error) {
    say(note, error.message, true);
  }
}

function wishes() {
  const kiki = {
    explain: true,
    plan: byId("plan").value,
    memory: byId("remember").checked,
    conversation,
  };
  for (const name of ["negotiate", "antibias"]) {
    const value = byId(name).value;
    if (value) kiki[name] = value === "true";
  }
  const body = { model: byId("model").value, messages, kiki };
  const most = byId("max-tokens").valueAsNumber;
  if (most) body.max_tokens = most;
  if (byId("user").value) body.user = byId("user").value;
  return { ...body, stream: true, stream_options: { include_usage: true } };
}

async function ask(text) {
  messages.push({ role: "user", content: text });
  said.append(make("article", { class: "asked" }, make("h2", {}, "You"), make("p", { class: "text" }, text)));
  const body = wishes();
  const written = make("p", { class: "text" });
  // Heard as a whole when it is finished, and not a token at a time.
  const article = make("article", { "aria-busy": "true" }, make("h2", {}, body.model), written);
  said.append(article);
  running = new AbortController();
  stop.disabled = false;
  say(note, "Answering.");
  const began = performance.now();
  try {
    const end = await read(body, written, running.signal);
    messages.push({ role: "assistant", content: written.textContent });
    const took = `${((performance.now() - began) / 1000).toFixed(1)} s`;
    say(note, `Answered in ${took} with ${end.usage.completion_tokens} tokens.`);
    if (end.finish === "length") {
      article.append(make("p", { class: "hint" }, "Cut off at the limit of tokens."));
    }
    if (end.kiki) article.append(explained(end.kiki, { user: body.user ?? "" }));
  } catch (error) {
    const stopped = error.name === "AbortError";
    say(note, stopped ? "Stopped." : error.message, !stopped);
    if (stopped && written.textContent) {
      messages.push({ role: "assistant", content: written.textContent });
    } else {
      // The question was not answered: it goes back, so that it can be asked again.
      messages.pop();
      if (!stopped) question.value ||= text;
      if (!written.textContent) article.remove();
    }
  } finally {
    article.removeAttribute("aria-busy");
    running = null;
    stop.disabled = true;
  }
}

async function read(body, written, signal) {
  const end = { finish: null, kiki: null, usage: null };
  const options = { body, signal };
  for await (const chunk of stream("v1/chat/completions", options)) {
    if (chunk.usage) end.usage = chunk.usage;
    if (chunk.kiki) end.kiki = chunk.kiki;
    const [choice] = chunk.choices;
    if (choice?.delta.content) written.append(choice.delta.content);
    if (choice?.finish_reason) end.finish = choice.finish_reason;
  }
  return end;
}

function explained(kiki, context) {
  const all = kiki.stages.reduce((sum, stage) => sum + stage.ms, 0);
  const mix = Object.entries(kiki.adapters).map(([name, weight]) => `${name} ${weight}`);
  const head = `${kiki.stages.length} stages, ${ms(all)}; plan ${kiki.plan}; ${mix.join(" + ") || "base"}`;
  return make("details", { class: "explained" }, make("summary", {}, head), timeline(kiki, context));
}

function submit() {
  const text = question.value.trim();
  if (running || !text) {
    say(note, running ? "An answer is being written. Stop it first." : "Write a question first.");
    return;
  }
  question.value = "";
  ask(text);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
stop.addEventListener("click", () => {
  running?.abort();
  question.focus();
});
byId("fresh").addEventListener("click", () => {
  begin();
  question.focus();
});
begin();
