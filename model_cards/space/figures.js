"use strict";

// The study's figures as SVG. Every point can be reached with the pointer, or with Tab and the arrow keys.

const SVG = "http://www.w3.org/2000/svg";
const NAMES = {gpt: "GPT", lstm: "LSTM"};
const MARKERS = {gpt: "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0", lstm: "M-5,-5h10v10h-10z"}; // a circle, a square
const MARGIN = {left: 58, right: 14, top: 14, bottom: 52};
const REACH = 30; // pixels from the pointer to the point that it selects

function draw(parent, tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

function short(count) {
  return count >= 1e6 ? count / 1e6 + "M" : count >= 1e3 ? count / 1e3 + "k" : String(count);
}

function power(value) {
  const [digits, exponent] = value.toExponential(2).split("e");
  return digits + " × 10" + exponent.replace("+", "").replace(/[-0-9]/g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]);
}

function percent(share) {
  return Math.round(100 * share) + " %";
}

// The 1-2-5 series between two positive numbers.
function decades(low, high) {
  const ticks = [];
  for (let ten = 10 ** Math.floor(Math.log10(low)); ten <= high; ten *= 10)
    for (const digit of [1, 2, 5]) if (digit * ten >= low && digit * ten <= high) ticks.push(digit * ten);
  return ticks;
}

// Multiples of the smallest round step that gives at most `most` of them.
function even(low, high, most) {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5].find((step) => (high - low) / step <= most) ?? 10;
  const ticks = [];
  for (let count = Math.ceil(low / step); count * step <= high; count++) ticks.push(Number((count * step).toPrecision(6)));
  return ticks;
}

function scale(values, from, to, kind) {
  const f = kind === "log" ? Math.log : Number;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const place = (value) => from + ((f(value) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
  return {low, high, place};
}

// One figure: {title, x, y, kind of the y axis, show (of a y), points, curves, levels}. A point is {architecture, name,
// x, y, low, high, facts}; a curve {architecture, at, value, low, high}; a level {y, name}.
function figure(chart) {
  const heading = make("h2", {}, chart.title);
  const legend = make("ul", {class: "legend", "aria-hidden": "true"});
  const paper = make("div", {class: "paper"});
  const run = make("div", {class: "run"});
  const whole = make("section", {class: "figure"}, heading, make("p", {}, chart.about), legend, paper, run, table(chart));
  for (const architecture of new Set(chart.points.map((point) => point.architecture))) {
    const sign = draw(document.createElementNS(SVG, "svg"), "path", {d: MARKERS[architecture], class: "mark"});
    sign.parentNode.setAttribute("viewBox", "-8 -8 16 16");
    legend.append(make("li", {class: architecture}, sign.parentNode, NAMES[architecture]));
  }
  let chosen = 0;
  let marks = [];

  function choose(number) {
    marks[chosen].setAttribute("tabindex", -1);
    marks[chosen].classList.remove("chosen");
    chosen = number;
    marks[chosen].setAttribute("tabindex", 0);
    marks[chosen].classList.add("chosen");
    const point = chart.points[chosen];
    run.replaceChildren(make("h3", {class: point.architecture}, point.name), facts(Object.entries(point.facts)));
  }

  function paint() {
    const width = paper.clientWidth;
    const height = Math.round(Math.min(420, Math.max(300, 0.62 * width)));
    const svg = document.createElementNS(SVG, "svg");
    for (const [name, value] of Object.entries({width, height, viewBox: `0 0 ${width} ${height}`, role: "group"}))
      svg.setAttribute(name, value);
    svg.setAttribute("aria-label", chart.title + ". The arrow keys go from point to point; a table follows.");
    const x = scale(reaching(chart, "x"), MARGIN.left + 14, width - MARGIN.right - 14, "log");
    const y = scale(reaching(chart, "y"), height - MARGIN.bottom - 10, MARGIN.top + 10, chart.kind);
    axes(svg, chart, x, y, width, height);
    for (const level of chart.levels) {
      const at = y.place(level.y);
      draw(svg, "line", {class: "level", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at});
      draw(svg, "text", {class: "level", x: width - MARGIN.right, y: at - 5, "text-anchor": "end"}, level.name);
    }
    for (const curve of chart.curves) {
      const path = (values) => curve.at.map((n, i) => x.place(n).toFixed(1) + "," + y.place(values[i]).toFixed(1));
      const band = [...path(curve.low), ...path(curve.high).reverse()].join("L");
      draw(svg, "path", {class: "band " + curve.architecture, d: "M" + band + "z"});
      draw(svg, "path", {class: "curve " + curve.architecture, d: "M" + path(curve.value).join("L")});
    }
    marks = chart.points.map((point, number) => {
      const place = `translate(${x.place(point.x).toFixed(1)} ${y.place(point.y).toFixed(1)})`;
      const label = [point.name, ...Object.entries(point.facts).map(([key, value]) => key + " " + value)].join(", ");
      const mark = draw(svg, "g", {class: "point " + point.architecture, transform: place, tabindex: -1, role: "img"});
      mark.setAttribute("aria-label", label);
      if (point.low !== undefined) {
        const [low, high] = [point.low, point.high].map((value) => y.place(value) - y.place(point.y));
        draw(mark, "path", {class: "interval", d: `M0,${low}V${high}M-4,${low}h8M-4,${high}h8`});
      }
      draw(mark, "path", {class: "mark", d: MARKERS[point.architecture]});
      mark.addEventListener("focus", () => choose(number));
      return mark;
    });
    choose(chosen);
    svg.addEventListener("keydown", (event) => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      if (step === undefined) return;
      event.preventDefault();
      marks[(chosen + step + marks.length) % marks.length].focus();
    });
    const nearest = (event) => {
      const corner = svg.getBoundingClientRect();
      const away = chart.points.map((point) =>
        Math.hypot(x.place(point.x) - event.clientX + corner.left, y.place(point.y) - event.clientY + corner.top));
      const least = Math.min(...away);
      if (least < REACH) choose(away.indexOf(least));
    };
    svg.addEventListener("pointermove", nearest);
    svg.addEventListener("pointerdown", nearest);
    paper.replaceChildren(svg);
  }

  let painted = 0;
  new ResizeObserver(() => {
    if (paper.clientWidth === painted || paper.clientWidth === 0) return;
    painted = paper.clientWidth;
    paint();
  }).observe(paper);
  return whole;
}

// All values that an axis must include.
function reaching(chart, axis) {
  const points = chart.points.flatMap((point) => [point[axis], ...(axis === "y" && point.low !== undefined ? [point.low, point.high] : [])]);
  const curves = chart.curves.flatMap((curve) => (axis === "x" ? curve.at : [...curve.low, ...curve.high]));
  return [...points, ...curves, ...(axis === "y" ? [...chart.levels.map((level) => level.y), ...chart.within] : [])];
}

function axes(svg, chart, x, y, width, height) {
  const [left, bottom] = [MARGIN.left, height - MARGIN.bottom];
  for (const value of even(y.low, y.high, 7)) {
    draw(svg, "line", {class: "grid", x1: left, x2: width - MARGIN.right, y1: y.place(value), y2: y.place(value)});
    draw(svg, "text", {x: left - 8, y: y.place(value) + 4, "text-anchor": "end"}, chart.show(value));
  }
  let free = left;
  for (const value of decades(x.low, x.high)) {
    if (x.place(value) < free) continue;
    free = x.place(value) + 42; // pixels, so that the next number does not touch this one
    draw(svg, "line", {class: "tick", x1: x.place(value), x2: x.place(value), y1: bottom, y2: bottom + 5});
    draw(svg, "text", {x: x.place(value), y: bottom + 20, "text-anchor": "middle"}, short(value));
  }
  draw(svg, "line", {class: "tick", x1: left, x2: width - MARGIN.right, y1: bottom, y2: bottom});
  draw(svg, "text", {x: (left + width - MARGIN.right) / 2, y: height - 8, "text-anchor": "middle"}, chart.x);
  const middle = (MARGIN.top + bottom) / 2;
  draw(svg, "text", {transform: `translate(14 ${middle}) rotate(-90)`, "text-anchor": "middle"}, chart.y);
}

function table(chart) {
  const columns = Object.keys(chart.points[0].facts);
  const row = (tag, cells) => make("tr", {}, ...cells.map((cell) => make(tag, tag === "th" ? {scope: "col"} : {}, cell)));
  const rows = chart.points.map((point) => row("td", [point.name, ...columns.map((column) => point.facts[column])]));
  const whole = make("table", {}, make("thead", {}, row("th", ["Run", ...columns])), make("tbody", {}, ...rows));
  const box = make("div", {class: "scroll", role: "region", "aria-label": chart.title + ", as a table", tabindex: 0}, whole);
  return make("details", {}, make("summary", {}, "Show as a table"), box);
}

function showFigures(element, study) {
  const box = element.firstElementChild;
  box.replaceChildren(figure(lossAgainstSize(study)), figure(qualityAgainstSize(study)));
}

function along(curves, name) {
  return Object.entries(curves).map(([architecture, curve]) => ({...curve, architecture, value: curve[name]}));
}

function lossAgainstSize({points, curves, baseline}) {
  return {
    title: "Loss against size",
    about: "Each mark is a run: point at it, or use the arrow keys. The curves are the fitted laws with 95 % bands.",
    x: "Parameters", y: "Validation loss (nats per character)", kind: "log", show: (loss) => loss.toFixed(1), within: [],
    points: points.map((run) => ({
      architecture: run.architecture,
      name: `${NAMES[run.architecture]} ${run.size}, seed ${run.seed}`,
      x: run.n_params, y: run.validation_loss,
      facts: {
        "Parameters": run.n_params.toLocaleString("en"),
        "Training tokens": run.tokens.toLocaleString("en"),
        "Compute": power(run.flops) + " FLOP",
        "Validation loss": run.validation_loss.toFixed(3) + " nats per character",
        "Bits per character": run.validation_bits_per_character.toFixed(3),
        "Learning rate": String(Number(run.learning_rate.toPrecision(3))),
        "Training time": run.seconds.toFixed(0) + " s",
      },
    })),
    curves: along(curves, "loss"),
    levels: [{y: baseline.validation_loss, name: `${baseline.order}-gram counts: ${baseline.validation_loss.toFixed(2)}`}],
  };
}

function qualityAgainstSize({quality}) {
  return {
    title: "Valid tunes against size",
    about: "Share of valid tunes of each size at its best temperature, with 95 % intervals.",
    x: "Parameters", y: "Share of valid tunes", kind: "even", show: percent, within: [0, 1],
    points: quality.points.map((cell) => ({
      architecture: cell.architecture,
      name: `${NAMES[cell.architecture]} ${cell.size}`,
      x: cell.n_params, y: cell.value, low: cell.interval[0], high: cell.interval[1],
      facts: {
        "Parameters": cell.n_params.toLocaleString("en"),
        "Valid": `${percent(cell.value)} [${percent(cell.interval[0])}, ${percent(cell.interval[1])}]`,
        "Tunes": String(cell.tunes),
        "Temperature": String(cell.temperature),
      },
    })),
    curves: along(quality.curves, "value"),
    levels: [{y: quality.human, name: `human tunes: ${percent(quality.human)}`}],
  };
}
