"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { samples, neighbors, similarities, layers, parts, numbers, words } = data;
const total = neighbors.length;
const pictured = "sheets" in samples;
const page = 300;
const meanings = {
  density: ["log density", "nats; 0 is as dense as samples spread evenly, low is unusual"],
  reliability: ["reliability", "samples that the prediction rests on; near 0, training says little here"],
  quality: ["label quality", "0 to 1; low is suspicious: similar samples have other labels"],
};
const at = (id) => document.getElementById(id);

// Each sheet once, by a name: a tile that held its sheet would be as large as all of it.
(samples.sheets ?? []).forEach((sheet, number) => {
  document.documentElement.style.setProperty(`--sheet${number}`, `url(${sheet})`);
});

// Words become text nodes, never markup.
function element(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") made.className = value;
    else if (key in made && !key.startsWith("aria")) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.map((child) => (typeof child === "number" ? String(child) : child)));
  return made;
}

function picture(index, scale) {
  const { side, width, height } = samples;
  const place = index % (side * side);
  const made = element("span", { class: "picture", role: "img", "aria-label": `sample ${index}` });
  Object.assign(made.style, {
    width: `${scale * width}px`,
    height: `${scale * height}px`,
    backgroundImage: `var(--sheet${Math.floor(index / (side * side))})`,
    backgroundSize: `${scale * side * width}px`,
    backgroundPosition:
      `${-scale * width * (place % side)}px ${-scale * height * Math.floor(place / side)}px`,
  });
  return made;
}

const contradicted = (index) => data.contradicted[index];
const said = (index) => {
  const parts = "label" in words ? [words.label[index]] : [];
  if ("prediction" in words && (contradicted(index) || !parts.length)) {
    parts.push(`says ${words.prediction[index]}`);
  }
  return parts.join(", ") || `#${index}`;
};

// What is shown of a sample wherever it can be clicked.
function tile(index, title, choose, chosen) {
  const scale = Math.max(1, Math.round(56 / Math.max(samples.width, samples.height)));
  const name = `tile${chosen ? " chosen" : ""}${contradicted(index) ? " contradicted" : ""}`;
  return element(
    "button",
    {
      class: name, type: "button", title: `sample ${index}`, "data-index": index, onclick: choose,
      "aria-current": chosen,
    },
    picture(index, scale),
    ...title.map((line) => element("span", { class: "caption" }, line)),
  );
}

const kind = (column) => (column === "text" && samples.columns.length === 1 ? "text" : "");
function heading(first) {
  const names = [...first, ...Object.keys(words), ...samples.columns];
  return element("tr", {}, ...names.map((name) => element("th", { class: kind(name) }, name)));
}
function row(index, first, choose, chosen) {
  const cells = [...first, ...Object.values(words).map((values) => values[index])];
  const made = element(
    "tr",
    {
      class: `row${chosen ? " chosen" : ""}`, tabIndex: 0, "data-index": index, onclick: choose,
      "aria-current": chosen,
    },
    ...cells.map((word) => element("td", { title: word }, word)),
    ...samples.cells[index].map((word, column) =>
      element("td", { class: kind(samples.columns[column]), title: word }, word)),
  );
  made.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
  });
  return made;
}

// The list: filtered, in order, drawn as far as it is scrolled.
let listed = [];
let drawn = 0;
let current = null;
const watcher = new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) drawMore();
}, { root: at("samples"), rootMargin: "400px" });

function ordered(indices, order) {
  if (!order) return indices;
  const [name, sign] = order.split(" ");
  const key = (index) => numbers[name][index] * Number(sign);
  return indices.sort((a, b) => key(a) - key(b) || a - b);
}

function list() {
  const label = at("label").value;
  const only = at("contradicted").querySelector("input").checked;
  const all = Array.from({ length: total }, (_, index) => index);
  listed = ordered(
    all.filter((index) => (label === "" || words.label[index] === label.slice(1)) &&
      (!only || contradicted(index))),
    at("order").value,
  );
  at("count").value = `${listed.length.toLocaleString("en")} of ${total.toLocaleString("en")} samples`;
  drawn = 0;
  const body = pictured
    ? element("div", { class: "tiles" })
    : element("table", {}, element("thead", {}, heading(["sample", ...sorted().map((name) =>
      meanings[name][0])])), element("tbody"));
  at("samples").replaceChildren(body, element("div", { id: "end" }));
  at("samples").scrollTop = 0;
  watcher.disconnect();
  watcher.observe(at("end"));
  drawMore();
}

// What the list is sorted by, which stands beside each sample.
const sorted = () => at("order").value.split(" ").filter((word) => word in numbers);

function drawMore() {
  if (drawn >= listed.length) return;
  const body = at("samples").querySelector(pictured ? ".tiles" : "tbody");
  for (const index of listed.slice(drawn, drawn + page)) {
    const choose = () => go(index);
    const chosen = index === current;
    const note = sorted().map((name) => numbers[name][index].toFixed(2));
    body.append(pictured
      ? tile(index, [said(index), ...note], choose, chosen)
      : row(index, [index, ...note], choose, chosen));
  }
  drawn += page;
  // An end that stays in sight says nothing new: look again.
  watcher.unobserve(at("end"));
  watcher.observe(at("end"));
}

// The chosen sample: facts, neighbours, and why.
function facts(index) {
  const found = Object.entries(numbers).flatMap(([name, values]) => [
    element("dt", {}, meanings[name][0]),
    element("dd", { "data-fact": name }, values[index].toFixed(3)),
    element("dd", { class: "said" }, meanings[name][1]),
  ]);
  const spoken = Object.entries(words).flatMap(([name, values]) => [
    element("dt", {}, name),
    element("dd", { "data-fact": name }, values[index]),
    element("dd", { class: `said${contradicted(index) ? " contradicted" : ""}` },
      name === "prediction" && contradicted(index) ? "contradicts the label" : ""),
  ]);
  return element("dl", { class: "facts" }, ...spoken, ...found);
}

function why(index, place) {
  const values = parts[index][place];
  const largest = Math.max(...values.map(Math.abs), 1e-9);
  const low = values.some((value) => value < 0) ? 50 : 0;
  const bars = values.flatMap((value, layer) => {
    const size = ((100 - low) * Math.abs(value)) / largest;
    const bar = element("span", { class: `bar ${value < 0 ? "takes" : "adds"}` });
    bar.style.width = `${size}%`;
    bar.style.left = `${value < 0 ? low - size : low}%`;
    return [
      element("span", {}, layers[layer]),
      element("span", { class: "track" }, bar),
      element("span", { class: "number" }, value.toFixed(3)),
    ];
  });
  const sum = values.reduce((one, other) => one + other, 0);
  return [
    element("h2", {}, `Why: what layers add to the similarity of ${sum.toFixed(3)} with sample ` +
      `${neighbors[index][place]}`),
    element("div", { class: "bars", id: "why" }, ...bars),
  ];
}

function neighbourhood(index, place) {
  const choose = (other) => () => show(index, other);
  const near = (other) => similarities[index][other].toFixed(3);
  const all = neighbors[index].map((_, other) => other);
  const made = pictured
    ? element("div", { class: "tiles" }, ...all.map((other) =>
      tile(neighbors[index][other], [near(other), said(neighbors[index][other])], choose(other),
        other === place)))
    : element("table", {}, heading(["sample", "similarity"]), ...all.map((other) =>
      row(neighbors[index][other], [neighbors[index][other], near(other)], choose(other),
        other === place)));
  made.id = "neighbours";
  return element("div", { class: "scroll" }, made);
}

// Into view, drawn first where the list does not reach that far yet.
function reveal(index) {
  const position = listed.indexOf(index);
  while (position >= drawn) drawMore();
  for (const one of at("samples").querySelectorAll("[data-index]")) {
    const chosen = Number(one.dataset.index) === index;
    one.classList.toggle("chosen", chosen);
    one.setAttribute("aria-current", chosen);
    if (chosen) one.scrollIntoView({ block: "nearest" });
  }
}

// The address follows, so that one can go back.
function go(index) {
  show(index);
  location.hash = index;
}

function show(index, place = 0) {
  // What had the focus is drawn anew: give it back.
  const focused = at("details").contains(document.activeElement);
  const same = current === index;
  current = index;
  const follow = element("button", { type: "button", id: "go" }, "Go to this neighbour");
  follow.onclick = () => go(neighbors[index][place]);
  const head = pictured
    ? element("div", { class: "head" },
      picture(index, Math.max(1, Math.round(140 / Math.max(samples.width, samples.height)))),
      facts(index))
    : element("div", {},
      element("div", { class: "scroll" }, element("table", {}, heading([]),
        row(index, [], () => {}, false))),
      element("p"), facts(index));
  at("details").replaceChildren(
    element("h2", { id: "title", tabIndex: -1 }, `Sample ${index}`),
    head,
    element("h2", {}, "Most similar samples: choose one to see why"),
    neighbourhood(index, place),
    ...why(index, place),
    element("p", {}, follow),
  );
  if (!same) reveal(index);
  at("news").textContent = `Sample ${index}, why it is similar to sample ${neighbors[index][place]}`;
  if (focused) (same ? at("neighbours").querySelector(".chosen") : at("title")).focus();
}

function chosen() {
  const index = Number.parseInt(location.hash.slice(1), 10);
  return index >= 0 && index < total ? index : listed[0] ?? 0;
}

function option(value, text) {
  return element("option", { value }, text);
}

// A value with a mark before it: no label is the empty choice.
const labels = [...new Set(words.label ?? [])];
labels.sort((a, b) => (Number(a) - Number(b)) || (a < b ? -1 : 1));
at("label").append(option("", "all"), ...labels.map((label) => option(`=${label}`, label)));
at("label").parentElement.hidden = labels.length < 2 || labels.length > 1000;
at("contradicted").hidden = !data.contradicted.some(Boolean);
at("order").append(option("", "as given"), ...Object.keys(numbers).flatMap((name) => [
  option(`${name} 1`, `${meanings[name][0]}, lowest first`),
  option(`${name} -1`, `${meanings[name][0]}, highest first`),
]));
at("controls").addEventListener("change", () => { list(); });
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("skip").addEventListener("click", () => at("title").focus());
window.addEventListener("hashchange", () => {
  if (chosen() !== current) show(chosen());
});
list();
show(chosen());
