
"use strict";

const AHEAD = 2; // seconds of notes handed to the synthesiser at a time: a hidden tab wakes only once a second
const LOUDNESS = 0.2;

let context = null; // one synthesiser for the page, made at the first press of Play
let hush = () => {}; // stops what sounds now

function hertz(pitch) {
  return 440 * 2 ** ((pitch - 69) / 12);
}

function clock(seconds) {
  return Math.floor(seconds / 60) + ":" + String(Math.floor(seconds % 60)).padStart(2, "0");
}

// Hands over the notes [start, length, pitch] that start at `from` seconds or later and before `to`; second 0 of the
// tune is `zero` on the context's clock.
function schedule(context, output, notes, zero, from, to) {
  for (const [start, length, pitch] of notes) {
    if (start < from || start >= to) continue;
    const begin = zero + start;
    const end = begin + Math.max(length, 0.05);
    const envelope = context.createGain();
    envelope.gain.setValueAtTime(0, begin);
    envelope.gain.linearRampToValueAtTime(LOUDNESS, begin + 0.01);
    envelope.gain.exponentialRampToValueAtTime(LOUDNESS / 4, end);
    envelope.gain.linearRampToValueAtTime(0, end + 0.04);
    envelope.connect(output);
    const tone = context.createOscillator();
    tone.type = "triangle";
    tone.frequency.value = hertz(pitch);
    tone.connect(envelope);
    tone.start(begin);
    tone.stop(end + 0.05);
  }
}

function preparePlayer(box) {
  const [button, slider, shown] = box.children;
  const notes = JSON.parse(box.dataset.notes);
  const end = Math.max(...notes.map(([start, length]) => start + length));
  const total = clock(end);
  slider.max = end;
  box.hidden = false;

  function show(seconds) {
    slider.value = seconds;
    shown.textContent = clock(seconds) + " / " + total;
  }

  function play(from) {
    hush();
    document.querySelectorAll("audio").forEach((audio) => audio.pause());
    context ??= new AudioContext();
    context.resume();
    const output = context.createGain();
    output.connect(context.destination);
    const zero = context.currentTime + 0.1 - from;
    let done = from;
    const step = () => {
      const now = Math.max(from, context.currentTime - zero);
      schedule(context, output, notes, zero, done, now + AHEAD);
      done = now + AHEAD;
      show(Math.min(now, end));
      if (now > end + 0.2) hush();
    };
    const timer = setInterval(step, 100);
    button.textContent = "Stop";
    hush = () => {
      clearInterval(timer);
      output.disconnect();
      button.textContent = "Play";
      if (Number(slider.value) >= end - 0.1) show(0);
      hush = () => {};
    };
    step();
  }

  button.addEventListener("click", () => {
    if (button.textContent === "Stop") hush();
    else play(Number(slider.value));
  });
  slider.addEventListener("input", () => {
    const from = Number(slider.value);
    if (button.textContent === "Stop") play(from);
    else show(from);
  });
  show(0);
}

async function copy(button) {
  const text = button.parentElement.querySelector("pre");
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(text); // the browser does not let a page copy: its reader can
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

if (typeof document !== "undefined") {
  document.querySelectorAll(".player").forEach(preparePlayer);
  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
  // One tune sounds at a time.
  document.addEventListener("play", (event) => {
    hush();
    for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
  }, true);
}
