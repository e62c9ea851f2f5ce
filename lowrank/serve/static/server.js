// Calls of the server. Every call has the page's half of the session in a header; the browser adds the other half, a cookie.

const KEPT = "lowrank-key";

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const key = () => localStorage.getItem(KEPT) ?? "";

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      ...options,
      headers: { "x-lowrank-key": key(), ...options.headers },
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is lowrank serve still running in its terminal?", 0);
  }
  if (answer.ok) return answer;
  let message = `The server answered ${answer.status}.`;
  try {
    message = (await answer.json()).error.message;
  } catch {
    // an answer that is not the server's own: its status has to do
  }
  throw new Refused(message, answer.status);
}

function post(path, value, options = {}) {
  const headers = { "content-type": "application/json" };
  return call(path, { method: "POST", body: JSON.stringify(value), headers, ...options });
}

export async function enter(code) {
  const session = await (await post("/session", { code })).json();
  localStorage.setItem(KEPT, session.key);
}

export async function leave() {
  try {
    await call("/session", { method: "DELETE" });
  } finally {
    localStorage.removeItem(KEPT);
  }
}

export const isKnown = () => key() !== "";

export const state = async () => (await call("/api/state")).json();

export const example = async (kind) => (await post("/api/example", { kind })).json();

export async function sendFacts(content, name, kind) {
  const headers = {
    "content-type": "application/octet-stream",
    "x-lowrank-name": encodeURIComponent(name),
    "x-lowrank-kind": encodeURIComponent(kind),
  };
  return (await call("/api/facts", { method: "POST", body: content, headers })).json();
}

export const readRecord = async (file, kind, record) => (await post("/api/record", { file, kind, record })).json();

export const exported = async (asked) => {
  const answer = await post("/api/export", asked);
  const name = /filename\*=UTF-8''([^;]+)/.exec(answer.headers.get("content-disposition") ?? "");
  return { name: name ? decodeURIComponent(name[1]) : "document", content: await answer.blob() };
};

// The events of a text that is being written, as they come; `signal` ends it, here and on the server.
export async function* write(asked, signal) {
  const answer = await post("/api/write", asked, { signal });
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let waiting = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The server went away while it was writing.", 0);
    }
    waiting += decoder.decode(part.value ?? new Uint8Array(), { stream: !part.done });
    for (let end = waiting.indexOf("\n\n"); end >= 0; end = waiting.indexOf("\n\n")) {
      const event = waiting.slice(0, end);
      waiting = waiting.slice(end + 2);
      if (event.startsWith("data: ")) yield JSON.parse(event.slice(6));
    }
    if (part.done) return;
  }
}
