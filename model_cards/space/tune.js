"use strict";

// The tunes of the demo with their facts. All that comes from the server is data and is shown as text.
// The player and the Copy button are those of generation/page.js; abcjs draws the scores.

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function facts(pairs) {
  return make("dl", {}, ...pairs.map(([key, value]) => make("div", {}, make("dt", {}, key), make("dd", {}, value))));
}

// A line for screen readers about the tunes, which others see; an error message for everybody.
function showStatus(element, props, watch) {
  const [status, error] = element.children;
  watch("value", () => {
    status.textContent = props.value.status ?? "";
    error.textContent = props.value.error ?? "";
  });
}

function showTunes(element, props, watch) {
  const article = element.firstElementChild;
  const show = () => {
    if (article.querySelector(".player button")?.textContent === "Stop") hush();
    article.replaceChildren(...(props.value ? partsOfTune(props.value) : [make("div", {class: "staff", "aria-hidden": "true"})]));
    article.querySelectorAll(".player").forEach(preparePlayer);
  };
  watch("value", show);
  show();
}

function partsOfTune(tune) {
  const parts = [
    make("h2", {}, tune.name),
    make("p", {class: tune.valid ? "valid" : "faulty"}, tune.verdict),
    score(tune),
  ];
  if (tune.notes.length) parts.push(player(tune));
  for (const message of tune.messages) parts.push(make("p", {class: "message"}, message));
  if (tune.copied) parts.push(make("p", {class: "copied"}, "Copied, not composed: ", tune.nearest));
  const measured = [["Bits per character", tune.bits]];
  if (!tune.copied) measured.push(["Nearest training tune", tune.nearest]);
  parts.push(facts(measured), notation(tune), files(tune));
  return parts;
}

// Drawn again, with as many bars a line as fit, whenever the width of its box changes.
function score(tune) {
  const box = make("div", {class: "score", role: "img", "aria-label": "Score of the tune by " + tune.name});
  let drawn = 0;
  new ResizeObserver(() => {
    const width = box.clientWidth;
    if (width === drawn || width === 0) return;
    drawn = width;
    const scale = width < 480 ? 0.75 : 0.9;
    try {
      ABCJS.renderAbc(box, tune.score, {
        responsive: "resize", staffwidth: width / scale, paddingleft: 2, paddingright: 2, paddingtop: 0, paddingbottom: 14,
        wrap: {minSpacing: 1.5, maxSpacing: 2.8, preferredMeasuresPerLine: 4},
      });
    } catch {
      box.replaceChildren("abcjs cannot draw this tune.");
    }
  }).observe(box);
  return box;
}

function player(tune) {
  return make(
    "div",
    {class: "player", role: "group", "aria-label": "Sound of the tune by " + tune.name,
      "data-notes": JSON.stringify(tune.notes), hidden: ""},
    make("button", {type: "button"}, "Play"),
    make("input", {type: "range", min: 0, step: 0.1, value: 0, "aria-label": "Position in the tune, in seconds"}),
    make("output", {"aria-live": "off"}, "0:00"),
  );
}

function notation(tune) {
  const button = make("button", {type: "button"}, "Copy");
  button.addEventListener("click", () => copy(button));
  const text = make("pre", {tabindex: 0}, tune.abc.trim());
  return make(
    "details", {}, make("summary", {}, "Notation and settings"), text, button, facts(Object.entries(tune.settings)),
  );
}

// The links contain the files: the server keeps none.
function files(tune) {
  const stem = (tune.name + " seed " + tune.settings.seed).toLowerCase().replace(/[^a-z0-9]+/g, "-");
  const link = (suffix, text, address) => make("a", {href: address, download: stem + suffix}, text);
  const links = [link(".abc", "Download ABC", "data:text/vnd.abc;charset=utf-8," + encodeURIComponent(tune.abc))];
  if (tune.midi) links.push(link(".mid", "Download MIDI", "data:audio/midi;base64," + tune.midi));
  return make("p", {class: "files"}, ...links);
}
