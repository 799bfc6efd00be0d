/* Sound in and out: plays PCM while it arrives, records, and makes wave files. */

export const RATE = 24000; // Hz of all PCM that the gateway sends
const LEAD_S = 0.06; // between the arrival of the first piece and its sound, so that the next one is in time
const LONGEST_RECORDING_MS = 29_000; // a gateway takes 30 s unless it is told otherwise

let context = null;
let playing = null;

/** Sound needs a gesture: to be called in its handler, before anything is waited for. */
export function wake() {
  // At the rate of the pieces: resampled one by one, they would click where they meet.
  context ??= new AudioContext({ sampleRate: RATE });
  context.resume();
}

/**
 * One stream of 16-bit PCM, played as it comes. Only one plays at a time.
 * `onFigures` is told { firstSound, seconds, arrivedIn, waits } (seconds) whenever one of them changes.
 */
export class Playback {
  #asked = performance.now();
  #sources = new Set();
  #next = 0; // when the next piece begins, on the context's clock
  #begun = null; // when the first one began
  #odd = new Uint8Array(0); // half a sample
  #pieces = [];
  #ended = false;
  #stopped = false;
  #figures = { firstSound: null, seconds: 0, arrivedIn: null, waits: 0 };

  constructor({ spectrogram = null, onFigures = () => {} } = {}) {
    this.spectrogram = spectrogram;
    this.onFigures = onFigures;
    this.finished = new Promise((resolve) => (this.finish = resolve));
    playing?.stop();
    playing = this;
    spectrogram?.clear();
  }

  /** Bytes of little-endian 16-bit samples, cut anywhere. */
  push(bytes) {
    if (this.#stopped) return;
    const all = new Uint8Array(this.#odd.length + bytes.length);
    all.set(this.#odd);
    all.set(bytes, this.#odd.length);
    const whole = all.length - (all.length % 2);
    this.#odd = all.slice(whole);
    if (whole) this.#play(new Int16Array(all.buffer, 0, whole / 2));
  }

  /** Nothing more comes. */
  end() {
    this.#ended = true;
    this.#figures.arrivedIn = (performance.now() - this.#asked) / 1000;
    this.onFigures({ ...this.#figures });
    if (!this.#sources.size) this.finish();
  }

  stop() {
    this.#ended = this.#stopped = true;
    for (const source of this.#sources) source.stop();
    this.finish();
  }

  /** Whether nobody hears it any more: it was stopped, or another one plays. */
  get stopped() {
    return this.#stopped;
  }

  /** All of it so far. */
  get samples() {
    const all = new Int16Array(this.#pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }

  #play(samples) {
    this.#pieces.push(samples);
    const wave = Float32Array.from(samples, (sample) => sample / 32768);
    const buffer = context.createBuffer(1, wave.length, RATE);
    buffer.copyToChannel(wave, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    const now = context.currentTime;
    if (this.#begun === null || this.#next < now) {
      if (this.#begun !== null) this.#figures.waits += 1;
      this.#next = now + LEAD_S;
    }
    if (this.#begun === null) {
      this.#begun = this.#next;
      const ahead = this.#next - now + (context.outputLatency || 0);
      this.#figures.firstSound = (performance.now() - this.#asked) / 1000 + ahead;
      this.#mark();
    }
    source.start(this.#next);
    this.#next += buffer.duration;
    this.#figures.seconds += buffer.duration;
    this.#sources.add(source);
    source.onended = () => {
      this.#sources.delete(source);
      if (this.#ended && !this.#sources.size) this.finish();
    };
    this.spectrogram?.add(wave);
    this.onFigures({ ...this.#figures });
  }

  #mark() {
    if (!this.spectrogram || playing !== this) return;
    const over = this.#ended && !this.#sources.size;
    // Waits push the sound back; from the end of what is there it is counted right.
    const heard = this.#figures.seconds - (this.#next - context.currentTime);
    this.spectrogram.mark(over ? null : Math.min(this.#figures.seconds, Math.max(0, heard)));
    if (!over) requestAnimationFrame(() => this.#mark());
  }
}

/** Plays 16-bit samples that are all there. */
export function playAgain(samples, spectrogram) {
  const playback = new Playback({ spectrogram });
  playback.push(new Uint8Array(samples.buffer));
  playback.end();
  return playback;
}

/** A short tone, as of a kitchen timer. */
export function ring() {
  if (!context) return;
  const tone = new OscillatorNode(context, { frequency: 880 });
  const gain = new GainNode(context, { gain: 0.15 });
  tone.connect(gain).connect(context.destination);
  tone.start();
  tone.stop(context.currentTime + 0.4);
}

/** The sound of a recording or file as mono 16-bit samples at RATE. Throws an Error in words. */
export async function decode(blob) {
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Error("This file holds no sound that the browser can read; a WAV file is always right.");
  }
  const channels = Array.from({ length: sound.numberOfChannels }, (_, n) => sound.getChannelData(n));
  return Int16Array.from(channels[0], (_, n) => {
    const mean = channels.reduce((sum, channel) => sum + channel[n], 0) / channels.length;
    return Math.round(32767 * Math.min(1, Math.max(-1, mean)));
  });
}

/** A wave file of mono 16-bit samples at RATE. */
export function waveFile(samples) {
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, n) => header.setUint8(at + n, letter.charCodeAt(0)));
  const bytes = 2 * samples.length;
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channels
  header.setUint32(24, RATE, true);
  header.setUint32(28, 2 * RATE, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, bytes, true);
  return new Blob([header, samples], { type: "audio/wav" });
}

export async function toBase64(blob) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(",") + 1);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** Records until `stop`, at most half a minute; `recorded` resolves to a Blob. Throws an Error in words. */
export class Recorder {
  static async begin() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error(
        "Browsers lend the microphone only to https and to localhost: open this page through " +
          "`kubectl port-forward`, or choose a wave file.",
      );
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    } catch (fault) {
      const none = fault.name === "NotFoundError";
      throw new Error(none ? "No microphone was found." : "The microphone was not allowed; choose a wave file, or allow it in the browser.");
    }
    playing?.stop(); // it would be recorded too
    return new Recorder(stream);
  }

  constructor(stream) {
    const parts = [];
    this.recorder = new MediaRecorder(stream);
    this.recorder.ondataavailable = (event) => parts.push(event.data);
    this.recorded = new Promise((resolve) => {
      this.recorder.onstop = () => {
        clearTimeout(timer);
        for (const track of stream.getTracks()) track.stop();
        resolve(new Blob(parts, { type: this.recorder.mimeType }));
      };
    });
    const timer = setTimeout(() => this.stop(), LONGEST_RECORDING_MS);
    this.recorder.start();
  }

  stop() {
    if (this.recorder.state !== "inactive") this.recorder.stop();
  }
}
