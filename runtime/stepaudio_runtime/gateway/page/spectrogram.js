/* A picture of sound, drawn while it arrives: a spectrogram up to 8 kHz, under it the wave. */

const SIZE = 512; // samples of one spectrum
const HOP = 240; // samples of one column: 10 ms at 24 kHz
const TOP_HZ = 8000;
const ROWS = 120; // of the spectrogram
const WAVE_ROWS = 36; // of the wave under it
const AT_LEAST = 200; // columns; a short sound is not stretched further
const FLOOR_DB = -75; // below full scale: black

export class Spectrogram {
  #canvas;
  #rate;
  #held = new Float32Array(0); // samples that have no column yet
  #columns = 0;
  #samples = 0;
  #store = sheet(1024);

  constructor(canvas, rate) {
    this.#canvas = canvas;
    this.#rate = rate;
    new ResizeObserver(() => this.#show()).observe(canvas);
  }

  clear() {
    this.#held = new Float32Array(0);
    this.#columns = this.#samples = 0;
    this.#store = sheet(1024);
    this.#show();
  }

  /** `samples` between -1 and 1. */
  add(samples) {
    this.#samples += samples.length;
    const all = new Float32Array(this.#held.length + samples.length);
    all.set(this.#held);
    all.set(samples, this.#held.length);
    let at = 0;
    for (; at + SIZE <= all.length; at += HOP) this.#column(all.subarray(at, at + SIZE));
    this.#held = all.slice(at);
    this.#show();
    this.#canvas.setAttribute("aria-label", `Spectrogram of ${(this.#samples / this.#rate).toFixed(1)} seconds of sound`);
  }

  /** Marks the moment that is heard, in seconds; null: none. */
  mark(seconds) {
    this.#show(seconds);
  }

  #column(frame) {
    if (this.#columns === this.#store.width) {
      const wider = sheet(2 * this.#store.width);
      wider.getContext("2d").drawImage(this.#store, 0, 0);
      this.#store = wider;
    }
    const x = this.#columns++;
    const pen = this.#store.getContext("2d");
    const column = pen.createImageData(1, ROWS);
    const power = spectrum(frame);
    for (let row = 0; row < ROWS; row++) {
      const level = 10 * Math.log10(power[Math.round(hertz(row) * (SIZE / this.#rate))] + 1e-12);
      column.data.set(colour(Math.min(1, Math.max(0, 1 - level / FLOOR_DB))), 4 * (ROWS - 1 - row));
    }
    pen.putImageData(column, x, 0);
    const middle = ROWS + WAVE_ROWS / 2;
    const peak = frame.subarray(0, HOP).reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    const half = Math.max(0.5, (peak * WAVE_ROWS) / 2);
    pen.fillStyle = "#5eead4";
    pen.fillRect(x, middle - half, 1, 2 * half);
  }

  #show(mark = null) {
    const canvas = this.#canvas;
    const scale = window.devicePixelRatio;
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    const shown = Math.max(AT_LEAST, this.#columns);
    pen.clearRect(0, 0, width, height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.#store, 0, 0, this.#columns, ROWS + WAVE_ROWS, 0, 0, (width * this.#columns) / shown, height);
    if (mark !== null) {
      pen.fillStyle = "#ffffffcc";
      pen.fillRect(Math.round((width * mark * this.#rate) / HOP / shown), 0, Math.max(1, scale), height);
    }
  }
}

function sheet(columns) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, ROWS + WAVE_ROWS];
  return canvas;
}

/** The frequency in the middle of a row; rows are even on the mel scale, as ears are. */
function hertz(row) {
  const mel = (2595 * Math.log10(1 + TOP_HZ / 700) * (row + 0.5)) / ROWS;
  return 700 * (10 ** (mel / 2595) - 1);
}

/** From black over blue and teal to a warm white. */
const STOPS = [[9, 14, 26], [24, 42, 92], [16, 122, 128], [112, 205, 140], [255, 236, 170]];
function colour(level) {
  const place = level ** 1.4 * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(place));
  const mix = (i) => STOPS[low][i] + (STOPS[low + 1][i] - STOPS[low][i]) * (place - low);
  return [mix(0), mix(1), mix(2), 255];
}

const WINDOW = Float32Array.from({ length: SIZE }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / SIZE));

/** Power of each frequency of `frame`, relative to a sine at full scale. An FFT of radix 2. */
function spectrum(frame) {
  const real = new Float32Array(SIZE);
  const imaginary = new Float32Array(SIZE);
  const bits = Math.log2(SIZE);
  for (let n = 0; n < SIZE; n++) {
    let turned = 0;
    for (let bit = 0; bit < bits; bit++) turned |= ((n >> bit) & 1) << (bits - 1 - bit);
    real[turned] = frame[n] * WINDOW[n];
  }
  for (let half = 1; half < SIZE; half *= 2) {
    for (let k = 0; k < half; k++) {
      const [c, s] = [Math.cos((-Math.PI * k) / half), Math.sin((-Math.PI * k) / half)];
      for (let a = k; a < SIZE; a += 2 * half) {
        const b = a + half;
        const [re, im] = [c * real[b] - s * imaginary[b], c * imaginary[b] + s * real[b]];
        [real[b], imaginary[b]] = [real[a] - re, imaginary[a] - im];
        real[a] += re;
        imaginary[a] += im;
      }
    }
  }
  return real.map((re, k) => (re ** 2 + imaginary[k] ** 2) / (SIZE / 4) ** 2);
}
