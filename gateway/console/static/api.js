// Calls to the gateway that served this page, with the caller's key.

const ROOT = new URL("../", document.baseURI);

let key = sessionStorage.getItem("kiki-key") ?? "";

export function useKey(text) {
  key = text.trim();
  if (key) sessionStorage.setItem("kiki-key", key);
  else sessionStorage.removeItem("kiki-key");
}

export const keyInUse = () => key;

/** What the gateway answered instead of what was asked for. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function send(path, { method = "GET", query = {}, body, signal } = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== "" && value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const sent = body === undefined ? undefined : JSON.stringify(body);
  try {
    return await fetch(url, { method, headers, body: sent, signal, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The gateway doesn't answer. Is it still running?");
  }
}

async function refusal(response) {
  const text = await response.text();
  let message = `The gateway answered ${response.status}.`;
  try {
    message = JSON.parse(text).error.message;
  } catch { /* no envelope: a proxy in between answered */ }
  if (response.status === 401) document.dispatchEvent(new CustomEvent("key-needed"));
  return new ApiError(response.status, message);
}

/** A call that answers JSON; statuses in `also` are no failure. Throws ApiError. */
export async function call(path, options = {}) {
  const response = await send(path, options);
  if (!response.ok && !(options.also ?? []).includes(response.status)) throw await refusal(response);
  return response.json();
}

/** The events of a stream, parsed. Throws ApiError, also where the stream breaks. */
export async function* stream(path, options) {
  const response = await send(path, { method: "POST", ...options });
  if (!response.ok) throw await refusal(response);
  let rest = "";
  for await (const text of texts(response.body)) {
    const events = (rest + text).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      const data = event.slice(6);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(response.status, chunk.error.message);
      yield chunk;
    }
  }
  throw new ApiError(response.status, "The stream ended before the answer did.");
}

async function* texts(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
