/* Puts the page together: what is typed, pressed and chosen goes to the parts, faults come back in words. */

import { KEY_NEEDED, call, key, notes, pieces, stopped } from "./api.js";
import { Home } from "./home.js";
import { Playback, RATE, Recorder, decode, playAgain, wake, waveFile } from "./sound.js";
import { Spectrogram } from "./spectrogram.js";
import { Conversation } from "./talk.js";

const TTS = "step-audio-tts";
const TO_SPEAK = ["the kitchen light is on", "seven times eight is fifty six", "the timer is set for ten minutes"];
const TO_SEND = ["turn on the bedroom lamp", "what is four plus seven", "set a timer for ten seconds", "what time is it"];

const $ = (id) => document.getElementById(id);
const seconds = (number) => (number === null ? "–" : `${number.toFixed(2)} s`);

// ---- faults -------------------------------------------------------------------------------------------

/** Runs `work`; what goes wrong is told in the element `place`. */
async function telling(place, work) {
  place.hidden = true;
  try {
    await work();
  } catch (fault) {
    if (stopped(fault)) return;
    place.textContent = fault.message;
    place.hidden = false;
  }
}

// ---- how it is spoken ---------------------------------------------------------------------------------

/** What is chosen, as fields of a request. */
function manner() {
  const chosen = { voice: $("voice").value, emotion: $("emotion").value, rate: $("rate").value };
  const speed = Number($("speed").value);
  return { ...Object.fromEntries(Object.entries(chosen).filter(([, value]) => value)), ...(speed !== 1 && { speed }) };
}

const showSpeed = () => ($("speed-shown").value = `${Number($("speed").value).toFixed(2)}×`);
$("speed").addEventListener("input", showSpeed);
showSpeed(); // browsers keep what was chosen over a reload

// ---- Speak --------------------------------------------------------------------------------------------

const spoken = new Spectrogram($("speak-picture"), RATE);
let speaking = null;
let said = null; // samples

function figures({ firstSound, seconds: length, arrivedIn, waits }) {
  $("first-sound").textContent = seconds(firstSound);
  $("speech-length").textContent = seconds(length);
  $("arrived-in").textContent = seconds(arrivedIn);
  $("waits").textContent = String(waits);
}

async function speak() {
  const stop = (speaking = new AbortController());
  const playback = new Playback({ spectrogram: spoken, onFigures: figures });
  stop.signal.addEventListener("abort", () => playback.stop());
  figures({ firstSound: null, seconds: null, arrivedIn: null, waits: "–" });
  $("say-stop").disabled = false;
  $("again").disabled = $("save").disabled = true;
  try {
    const json = { model: TTS, input: $("text").value, response_format: "pcm", ...manner() };
    const answer = await call("v1/audio/speech", { json, signal: stop.signal });
    const ignored = notes(answer);
    $("speak-notes").hidden = !ignored.length;
    $("speak-notes").textContent = ignored.join(" ");
    for await (const piece of pieces(answer)) {
      if (playback.stopped) break;
      playback.push(piece);
    }
    playback.end();
    $("speak-news").textContent = `${$("speech-length").textContent} of speech, first sound after ${$("first-sound").textContent}`;
    await playback.finished;
  } catch (fault) {
    playback.stop();
    throw fault;
  } finally {
    if (speaking === stop) {
      said = playback.samples;
      $("say-stop").disabled = true;
      $("again").disabled = $("save").disabled = !said.length;
    }
  }
}

$("speak-form").addEventListener("submit", (event) => {
  event.preventDefault();
  wake();
  speaking?.abort();
  telling($("speak-fault"), speak);
});
$("say-stop").addEventListener("click", () => speaking?.abort());
$("again").addEventListener("click", async () => {
  wake();
  const playback = playAgain(said, spoken);
  const stop = (speaking = { abort: () => playback.stop() });
  $("say-stop").disabled = false;
  await playback.finished;
  if (speaking === stop) $("say-stop").disabled = true;
});
$("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(waveFile(said));
  link.download = "speech.wav";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});

// ---- Talk ---------------------------------------------------------------------------------------------

const home = new Home({ house: $("house"), timers: $("timers"), news: $("home-news"), clock: $("clock") });
const conversation = new Conversation({
  log: $("log"),
  home,
  manner: () => ({ ...manner(), aloud: $("aloud").checked, tools: $("tools").checked }),
});
const heard = new Spectrogram($("talk-picture"), RATE);
let recorder = null;
let talks = 0;

function talk(work) {
  wake();
  return telling($("talk-fault"), async () => {
    talks += 1;
    $("talk-stop").disabled = false;
    try {
      await work();
    } finally {
      $("talk-stop").disabled = --talks === 0;
    }
  });
}

async function sayIt(blob) {
  const samples = await decode(blob);
  if (!samples.length) throw new Error("There is no sound in it.");
  heard.clear();
  heard.add(Float32Array.from(samples, (sample) => sample / 32768));
  await conversation.say(samples);
}

function showRecording(on) {
  $("record").setAttribute("aria-pressed", String(on));
  $("record").querySelector("span").textContent = on ? "Stop and send" : "Record";
}

$("record").addEventListener("click", () => {
  if (recorder) {
    recorder.stop();
    return;
  }
  conversation.stop();
  talk(async () => {
    $("record").disabled = true; // until the browser has asked its user
    try {
      recorder = await Recorder.begin();
    } finally {
      $("record").disabled = false;
    }
    showRecording(true);
    const blob = await recorder.recorded;
    recorder = null;
    showRecording(false);
    await sayIt(blob);
  });
});
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (!file) return;
  talk(() => sayIt(file));
  $("file").value = ""; // the same file may be chosen again
});
$("talk-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("words").value;
  $("words").value = "";
  talk(() => conversation.type(words));
});
$("talk-stop").addEventListener("click", () => conversation.stop());
$("clear").addEventListener("click", () => conversation.clear());

function examples(place, texts, use) {
  for (const text of texts) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => use(text));
    place.append(button);
  }
}
examples($("speak-examples"), TO_SPEAK, (text) => ($("text").value = text));
examples($("talk-examples"), TO_SEND, (text) => talk(() => conversation.type(text)));

// ---- what is served -----------------------------------------------------------------------------------

async function list(path) {
  return (await (await call(path)).json()).data;
}

function fill(place, names) {
  place.replaceChildren(
    ...(names.length ? names : ["none"]).map((name) => {
      const entry = document.createElement("li");
      entry.textContent = name;
      return entry;
    }),
  );
}

async function showServed() {
  $("state").textContent = "Asking the gateway…";
  $("state").className = "state";
  try {
    const models = await list("v1/models");
    fill($("models"), models.map(({ id, root }) => (root && root !== id ? `${id} (${root})` : id)));
    const has = (name) => models.some(({ id }) => id === name);
    for (const [section, model] of [["speak", TTS], ["talk", "step-audio-chat"]]) {
      $(`${section}-absent`).hidden = has(model);
    }
    $("state").textContent = `Serving ${models.length ? models.map(({ root, id }) => root ?? id).filter((name, n, all) => all.indexOf(name) === n).join(" and ") : "nothing yet"}`;
    $("state").classList.add("good");
    if (!has(TTS)) $("aloud").checked = false;
    const voices = has(TTS) ? await list("v1/voices") : [];
    fill($("voices"), voices.map(({ name, alias_of: of }) => (of ? `${name} (${of})` : name)));
    const chosen = $("voice").value;
    $("voice").replaceChildren(new Option("default", ""), ...voices.map(({ id, name }) => new Option(name, id)));
    if (voices.some(({ id }) => id === chosen)) $("voice").value = chosen;
  } catch (fault) {
    $("state").textContent = fault.status === 401 ? "A key is needed" : "Not everything could be asked";
    $("state").classList.add("bad");
    throw fault;
  }
}

const refresh = () => telling($("served-fault"), showServed);
$("refresh").addEventListener("click", refresh);

// ---- the key ------------------------------------------------------------------------------------------

document.addEventListener(KEY_NEEDED, () => {
  if ($("key-dialog").open) return; // several requests were refused at once
  $("key-fault").hidden = !key.get();
  $("key-fault").textContent = key.get() ? "This key is not among the gateway's." : "";
  key.forget();
  $("forget").hidden = true;
  $("key-dialog").showModal();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value);
  $("key").value = "";
  $("key-dialog").close();
  $("forget").hidden = false;
  refresh();
});
$("key-cancel").addEventListener("click", () => $("key-dialog").close());
$("forget").addEventListener("click", () => {
  key.forget();
  $("forget").hidden = true;
  refresh();
});
$("forget").hidden = !key.get();

refresh();
