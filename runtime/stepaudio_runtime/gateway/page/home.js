/* The home: a picture of rooms and things, and the tools by which the model acts on it.

   Rooms, things and tools are those that the nano models know (`engine/domain`), written as they have learnt
   them: a small model knows a tool by its very words. */

import { ring } from "./sound.js";

const ROOMS = ["kitchen", "bedroom", "bathroom", "living room", "office", "garage"];
const THINGS = ["light", "lamp", "radio", "fan", "heater", "television"];
const STATES = ["on", "off"];
const SECONDS = { second: 1, minute: 60, hour: 3600 };

const tool = (name, description, properties) => ({
  type: "function",
  function: {
    name,
    description,
    parameters: { type: "object", properties, required: Object.keys(properties) },
  },
});

export const TOOLS = [
  tool("switch", "switch a thing on or off", {
    room: { type: "string", enum: ROOMS },
    thing: { type: "string", enum: THINGS },
    state: { type: "string", enum: STATES },
  }),
  tool("timer", "set a timer", {
    count: { type: "integer" },
    unit: { type: "string", enum: Object.keys(SECONDS) },
  }),
  tool("time", "tell the time", {}),
];

const SVG = "http://www.w3.org/2000/svg";
const DONE = '{"ok": true}'; // with the space that the models have learnt
const failed = (why) => JSON.stringify({ ok: false, error: why });

export class Home {
  #things = new Map(); // "kitchen light" -> its button
  #news;
  #timers;

  /** `house`, `timers`, `news`, `clock` are the elements to fill. */
  constructor({ house, timers, news, clock }) {
    this.#news = news;
    this.#timers = timers;
    house.append(...ROOMS.map((room) => this.#room(room)));
    arrows(house, [...this.#things.values()]);
    const tick = () => (clock.textContent = time());
    tick();
    setInterval(tick, 1000);
  }

  /** Does what the model called for; the answer is the text of the `tool` message. */
  call(name, text) {
    let given;
    try {
      given = JSON.parse(text);
    } catch {
      return failed("the arguments are not JSON");
    }
    if (name === "switch") return this.#switch(given);
    if (name === "timer") return this.#timer(given);
    if (name === "time") return `{"time": "${time()}"}`;
    return failed(`there is no tool ${name}`);
  }

  #switch({ room, thing, state }) {
    const button = this.#things.get(`${room} ${thing}`);
    if (!button || !STATES.includes(state)) return failed("there is no such thing here");
    this.#set(button, state === "on");
    button.classList.remove("called");
    void button.offsetWidth; // so that the flash begins anew
    button.classList.add("called");
    this.#news.textContent = `The model switched the ${room} ${thing} ${state}.`;
    return DONE;
  }

  #timer({ count, unit }) {
    if (!Number.isInteger(count) || count < 1 || !(unit in SECONDS)) return failed("this is no length of time");
    const ends = Date.now() + 1000 * count * SECONDS[unit];
    const entry = document.createElement("li");
    const left = document.createElement("strong");
    left.setAttribute("role", "timer");
    entry.append(`${count} ${unit}${count > 1 ? "s" : ""} `, left);
    this.#timers.append(entry);
    this.#news.textContent = `The model set a timer: ${count} ${unit}${count > 1 ? "s" : ""}.`;
    const tick = () => {
      const seconds = Math.max(0, Math.ceil((ends - Date.now()) / 1000));
      left.textContent = clockOf(seconds);
      if (seconds) return;
      clearInterval(ticking);
      ring();
      this.#news.textContent = `The timer of ${count} ${unit}${count > 1 ? "s" : ""} is over.`;
      setTimeout(() => entry.remove(), 5000);
    };
    const ticking = setInterval(tick, 250);
    tick();
    return DONE;
  }

  #room(room) {
    const box = document.createElement("div");
    box.className = "room";
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", room);
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = room;
    box.append(name, ...THINGS.map((thing) => this.#thing(box, room, thing)));
    return box;
  }

  #thing(box, room, thing) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `thing ${thing}`;
    button.title = `${room} ${thing}`;
    button.setAttribute("aria-label", `${room} ${thing}`);
    button.setAttribute("aria-pressed", "false");
    const icon = document.createElementNS(SVG, "svg");
    icon.setAttribute("viewBox", "0 0 24 24");
    icon.setAttribute("aria-hidden", "true");
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", `#icon-${thing}`);
    icon.append(use);
    button.append(icon);
    button.addEventListener("click", () => this.#set(button, button.getAttribute("aria-pressed") !== "true"));
    this.#things.set(`${room} ${thing}`, button);
    return button;
  }

  #set(button, on) {
    button.setAttribute("aria-pressed", String(on));
    const room = button.closest(".room");
    room.classList.toggle("lit", room.querySelector('.light[aria-pressed="true"], .lamp[aria-pressed="true"]') !== null);
  }
}

/** One of `buttons` is reached by Tab, the others from there: left and right one on, up and down one room on. */
function arrows(house, buttons) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -THINGS.length, ArrowDown: THINGS.length };
  buttons.forEach((button, n) => (button.tabIndex = n ? -1 : 0));
  house.addEventListener("focusin", ({ target }) => {
    for (const button of buttons) button.tabIndex = button === target ? 0 : -1;
  });
  house.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const now = buttons.indexOf(document.activeElement);
    buttons[(now + step + buttons.length) % buttons.length].focus();
  });
}

/** The time as the models tell it: 12 hours, no leading nought. */
function time() {
  const now = new Date();
  return `${now.getHours() % 12 || 12}:${String(now.getMinutes()).padStart(2, "0")}`;
}

function clockOf(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  return `${hours ? `${hours}:` : ""}${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}
