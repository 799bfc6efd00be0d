/* A conversation: what the user said, what was heard, the calls of tools, the answer as it comes. */

import { call, events, stopped } from "./api.js";
import { TOOLS } from "./home.js";
import { Playback, fromBase64, toBase64, waveFile } from "./sound.js";

const CHAT = "step-audio-chat";
const ROUNDS = 5; // answers to one question that may call tools, the last one included

export class Conversation {
  #log;
  #home;
  #manner;
  #before = []; // the last exchange; the small models have learnt to look back on one
  #stop = null;

  /** `manner()` gives { aloud, tools, voice, ... } as chosen on the page at that moment. */
  constructor({ log, home, manner }) {
    this.#log = log;
    this.#home = home;
    this.#manner = manner;
  }

  /** Forgets what was said, on the page too. */
  clear() {
    this.stop();
    this.#before = [];
    this.#log.replaceChildren();
  }

  stop() {
    this.#stop?.abort();
  }

  /** Asks in writing. Resolves when the answer has come and been heard; throws ApiError. */
  async type(words) {
    const said = this.#entry("you", "You");
    said.text.textContent = words;
    await this.#ask({ role: "user", content: words });
  }

  /** Asks aloud, with 16-bit samples; beside the answer the page gets what was heard in writing. */
  async say(samples) {
    const said = this.#entry("you", "You, as heard");
    said.text.textContent = "…";
    const file = waveFile(samples);
    const part = { type: "input_audio", input_audio: { data: await toBase64(file), format: "wav" } };
    const heard = this.#transcribe(file, said);
    await this.#ask({ role: "user", content: [part] });
    await heard;
  }

  async #transcribe(file, said) {
    const form = new FormData();
    form.set("model", CHAT);
    form.set("file", file, "said.wav");
    try {
      const { text } = await (await call("v1/audio/transcriptions", { form })).json();
      said.text.textContent = text || "(nothing)";
    } catch (fault) {
      said.text.textContent = `(not written down: ${fault.message})`;
    }
  }

  async #ask(question) {
    this.stop();
    const stop = (this.#stop = new AbortController());
    const manner = this.#manner();
    const exchange = [question];
    const asked = performance.now();
    let playback = null;
    const answer = this.#entry("model", "Step-Audio");
    answer.item.setAttribute("aria-busy", "true");
    try {
      if (manner.aloud) {
        playback = new Playback({ onFigures: ({ firstSound, seconds }) => answer.tell({ firstSound, seconds }) });
        stop.signal.addEventListener("abort", () => playback.stop());
      }
      for (let round = 0; round < ROUNDS; round++) {
        const messages = [...this.#before, ...exchange];
        const { text, calls } = await this.#stream(messages, manner, stop.signal, playback, answer, asked);
        exchange.push({ role: "assistant", content: text || null, ...(calls.length && { tool_calls: calls }) });
        if (!calls.length) break;
        for (const { id, function: made } of calls) {
          const result = this.#home.call(made.name, made.arguments);
          answer.call(made, result);
          exchange.push({ role: "tool", tool_call_id: id, content: result });
        }
      }
      this.#before = exchange;
      if (answer.isEmpty()) answer.note("no words");
      playback?.end();
      await playback?.finished;
    } catch (fault) {
      playback?.stop();
      answer.note(stopped(fault) ? "stopped" : "broken off");
      if (!stopped(fault)) throw fault;
    } finally {
      answer.item.removeAttribute("aria-busy");
    }
  }

  /** One answer of the model: its words into the page and its sound into `playback` as they come. */
  async #stream(messages, { aloud, tools, ...spoken }, signal, playback, answer, asked) {
    const json = { model: CHAT, messages, stream: true, modalities: aloud ? ["text", "audio"] : ["text"] };
    if (aloud) json.audio = { format: "pcm16", ...spoken };
    if (tools) json.tools = TOOLS;
    let text = "";
    const calls = [];
    for await (const event of events(await call("v1/chat/completions", { json, signal }))) {
      const delta = event.choices[0]?.delta ?? {};
      const words = delta.content ?? delta.audio?.transcript ?? "";
      if (words) {
        text += words;
        answer.text.textContent += words;
        answer.tell({ firstWord: (performance.now() - asked) / 1000 });
        this.#log.scrollTop = this.#log.scrollHeight;
      }
      for (const { id, type, function: made } of delta.tool_calls ?? []) calls.push({ id, type, function: made });
      if (delta.audio?.data) playback.push(fromBase64(delta.audio.data));
    }
    return { text, calls };
  }

  #entry(who, name) {
    const item = element("li", who);
    const text = element("p", "words");
    const calls = element("div", "calls");
    const figures = element("p", "figures");
    item.append(element("p", "who", name), calls, text, figures);
    this.#log.append(item);
    this.#log.scrollTop = this.#log.scrollHeight;
    const known = {};
    const tell = (news) => {
      for (const [name, value] of Object.entries(news)) if (name === "seconds" || !(name in known)) known[name] = value;
      const told = [
        known.firstWord && `first word after ${known.firstWord.toFixed(2)} s`,
        known.firstSound && `first sound after ${known.firstSound.toFixed(2)} s`,
        known.seconds && `${known.seconds.toFixed(1)} s of speech`,
      ];
      figures.textContent = told.filter(Boolean).join(" · ");
    };
    const call = ({ name, arguments: given }, result) => {
      const code = element("code", "", `${name}(${Object.values(JSON.parse(given)).join(", ")})`);
      const made = element("p", "call");
      made.append(code, ` → ${result}`);
      calls.append(made);
      this.#log.scrollTop = this.#log.scrollHeight;
    };
    const isEmpty = () => !text.textContent && !calls.childElementCount;
    const note = (words) => item.append(element("p", "aside", `(${words})`));
    return { item, text, tell, call, note, isEmpty };
  }
}

function element(kind, name, words = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = words;
  return made;
}
