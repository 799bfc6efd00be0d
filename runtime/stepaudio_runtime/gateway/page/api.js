/* The gateway's API from a browser: the key, requests, streams of events, and errors in words. */

const STORED = "stepaudio-key"; // in sessionStorage: gone with the tab

export const key = {
  get: () => sessionStorage.getItem(STORED),
  set: (text) => sessionStorage.setItem(STORED, text),
  forget: () => sessionStorage.removeItem(STORED),
};

export const KEY_NEEDED = "stepaudio:key-needed"; // an event of the document

export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status; // of HTTP; 0 where there was no answer, or it broke off
  }
}

/** Asks for `path`, relative to the page. With `json` or `form` it is a POST. Throws ApiError. */
export async function call(path, { json, form, signal } = {}) {
  const headers = new Headers();
  const shown = key.get();
  if (shown) headers.set("Authorization", `Bearer ${shown}`);
  if (json) headers.set("Content-Type", "application/json");
  const body = json ? JSON.stringify(json) : form;
  const method = body ? "POST" : "GET";
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), { method, headers, body, signal, cache: "no-store" });
  } catch (fault) {
    throw inWords(fault, "The gateway cannot be reached. Is it still running at the address of this page?");
  }
  if (answer.status === 401 && shown === key.get()) document.dispatchEvent(new Event(KEY_NEEDED)); // not for an old key
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

/** The bytes of a streamed answer as they come. */
export async function* pieces(answer) {
  const reader = answer.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (fault) {
    throw inWords(fault, "The answer broke off before its end.");
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading ends the request
  }
}

/** The events of a streamed answer; the stream has to end with [DONE]. */
export async function* events(answer) {
  const decoder = new TextDecoder();
  let held = "";
  for await (const piece of pieces(answer)) {
    held += decoder.decode(piece, { stream: true });
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const event of whole) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new ApiError(parsed.error.message);
      yield parsed;
    }
  }
  throw new ApiError("The answer broke off before its end.");
}

/** What of a request the gateway left aside, in its own words. */
export function notes(answer) {
  try {
    return JSON.parse(answer.headers.get("X-Notes") ?? "[]");
  } catch {
    return []; // a very long list is cut
  }
}

/** Whether a fault is only that the user stopped it. */
export const stopped = (fault) => fault?.name === "AbortError";

function inWords(fault, words) {
  return stopped(fault) || fault instanceof ApiError ? fault : new ApiError(words);
}

async function refusal(answer) {
  let words = `The gateway answered ${answer.status}.`;
  try {
    words = (await answer.json()).error.message;
  } catch {
    // A proxy in between has its own pages.
  }
  const wait = answer.headers.get("Retry-After");
  return new ApiError(wait ? `${words} Try again in ${wait} s.` : words, answer.status);
}
