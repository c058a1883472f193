/** Requests to the server that the page came from. */
import { text } from "./language.js";

const STORED = "token";

/** A refusal of the server, in its own words, or a server that is gone. */
export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let askForToken = null;

/** Set what is called when the server asks for a token: a function of whether one was wrong, which returns a promise. */
export function onToken(ask) {
  askForToken = ask;
}

/** Return what the page shows of the model. */
export async function describe() {
  return (await request("v1/page")).json();
}

/** Return the file of an example. */
export async function exampleFile(number, name) {
  const response = await request(`v1/page/files/${number}`);
  return new File([await response.blob()], name);
}

/** Return the answer to a request that is not streamed. */
export async function answer(body, signal) {
  return (await post(body, signal)).json();
}

/** Yield the events of a streamed answer: {text} for each piece, then {answers, usage}. */
export async function* stream(body, signal) {
  const response = await post({ ...body, stream: true }, signal);
  const [reader, decoder] = [response.body.getReader(), new TextDecoder()];
  let rest = "";
  let isWhole = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") {
          isWhole = true;
          continue;
        }
        const found = JSON.parse(data);
        if (found.error) throw new Problem(found.error.message);
        yield found;
      }
    }
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem(text("cutStream"));
  }
  if (!isWhole) throw new Problem(text("cutStream"));
}

function post(body, signal) {
  const headers = { "Content-Type": "application/json" };
  return request("v1/answer", { method: "POST", body: JSON.stringify(body), headers, signal });
}

async function request(path, options = {}, wasWrong = false) {
  const token = sessionStorage.getItem(STORED);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(text("unreachable", { cause: error.message }));
  }
  if (response.status === 401 && askForToken) {
    sessionStorage.setItem(STORED, await askForToken(wasWrong || token !== null));
    return request(path, options, true);
  }
  if (!response.ok) throw new Problem(await explain(response), response.status);
  return response;
}

async function explain(response) {
  const found = await response.json().catch(() => null);
  const message = found?.error?.message ?? `${response.status} ${response.statusText}`;
  const wait = response.headers.get("Retry-After");
  return wait ? `${message} ${text("retryAfter", { seconds: wait })}` : message;
}
