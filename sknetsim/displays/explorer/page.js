"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { samples, neighbors, similarities, layers, contributions, scores, texts } = data;
const total = neighbors.length;
const hasImages = "sheets" in samples;
const pageSize = 300;
// Name and meaning of each score.
const meanings = {
  density: ["log density", "nats; 0: as dense as evenly spread samples; low: unusual"],
  reliability: ["reliability", "number of samples that support the prediction; near 0: hardly any"],
  quality: ["label quality", "0 to 1; low: suspicious, because similar samples have other labels"],
};
const byId = (id) => document.getElementById(id);

// Each sheet is a variable of the document, so that tiles do not repeat it.
(samples.sheets ?? []).forEach((sheet, number) => {
  document.documentElement.style.setProperty(`--sheet${number}`, `url(${sheet})`);
});

// Texts become text nodes, never markup.
function makeElement(name, options = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") element.className = value;
    else if (key in element && !key.startsWith("aria")) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.map((child) => (typeof child === "number" ? String(child) : child)));
  return element;
}

function makePicture(index, scale) {
  const { side, width, height } = samples;
  const place = index % (side * side);
  const options = { class: "picture", role: "img", "aria-label": `sample ${index}` };
  const element = makeElement("span", options);
  Object.assign(element.style, {
    width: `${scale * width}px`,
    height: `${scale * height}px`,
    backgroundImage: `var(--sheet${Math.floor(index / (side * side))})`,
    backgroundSize: `${scale * side * width}px`,
    backgroundPosition:
      `${-scale * width * (place % side)}px ${-scale * height * Math.floor(place / side)}px`,
  });
  return element;
}

// The scale that makes the longer side of an image about `pixels` long.
const scaleTo = (pixels) =>
  Math.max(1, Math.round(pixels / Math.max(samples.width, samples.height)));

const isMismatch = (index) => data.mismatches[index];
function makeCaption(index) {
  const parts = "label" in texts ? [texts.label[index]] : [];
  if ("prediction" in texts && (isMismatch(index) || !parts.length)) {
    parts.push(`predicted ${texts.prediction[index]}`);
  }
  return parts.join(", ") || `#${index}`;
}

// A sample as a button with its image and captions.
function makeTile(index, captions, select, isSelected) {
  const name = `tile${isSelected ? " selected" : ""}${isMismatch(index) ? " mismatch" : ""}`;
  return makeElement(
    "button",
    {
      class: name, type: "button", title: `sample ${index}`, "data-index": index, onclick: select,
      "aria-current": isSelected,
    },
    makePicture(index, scaleTo(56)),
    ...captions.map((line) => makeElement("span", { class: "caption" }, line)),
  );
}

// A sample as a row of a table, and the heading of the table.
const columns = samples.columns ?? [];
const columnClass = (place) => (samples.wraps[place] ? "text" : "");
function makeHeading(first) {
  const names = [...first, ...Object.keys(texts)];
  return makeElement("tr", {}, ...names.map((name) => makeElement("th", {}, name)),
    ...columns.map((name, place) => makeElement("th", { class: columnClass(place) }, name)));
}
// Long texts are in an element of their own, whose height is limited in lists.
function makeCell(text, name) {
  const content = name ? makeElement("div", {}, text) : text;
  const classes = text === "missing" ? `${name} missing` : name;
  return makeElement("td", { class: classes, title: text }, content);
}
function makeRow(index, first, select, isSelected) {
  const cells = [...first, ...Object.values(texts).map((values) => values[index])];
  const element = makeElement(
    "tr",
    {
      class: `row${isSelected ? " selected" : ""}`, tabIndex: 0, "data-index": index,
      onclick: select, "aria-current": isSelected,
    },
    ...cells.map((text) => makeElement("td", { title: text }, text)),
    ...columns.map((_, place) => makeCell(samples.cells[index][place], columnClass(place))),
  );
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(); }
  });
  return element;
}

// The list of samples: filtered and sorted, and drawn as far as the user has scrolled.
let listed = [];
let drawn = 0;
let current = null;
const watcher = new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) drawMore();
}, { root: byId("samples"), rootMargin: "400px" });

function sortSamples(indices, order) {
  if (!order) return indices;
  const [name, sign] = order.split(" ");
  const key = (index) => scores[name][index] * Number(sign);
  return indices.sort((a, b) => key(a) - key(b) || a - b);
}

// The score that the list is sorted by; it is shown beside each sample.
const sortedScores = () => byId("order").value.split(" ").filter((name) => name in scores);

function drawList() {
  const label = byId("label").value;
  const onlyMismatches = byId("mismatch").querySelector("input").checked;
  const all = Array.from({ length: total }, (_, index) => index);
  listed = sortSamples(
    all.filter((index) => (label === "" || texts.label[index] === label.slice(1)) &&
      (!onlyMismatches || isMismatch(index))),
    byId("order").value,
  );
  byId("count").value =
    `${listed.length.toLocaleString("en")} of ${total.toLocaleString("en")} samples`;
  drawn = 0;
  const names = ["sample", ...sortedScores().map((name) => meanings[name][0])];
  const body = hasImages
    ? makeElement("div", { class: "tiles" })
    : makeElement("table", {}, makeElement("thead", {}, makeHeading(names)), makeElement("tbody"));
  byId("samples").replaceChildren(body, makeElement("div", { id: "end" }));
  byId("samples").scrollTop = 0;
  watcher.disconnect();
  watcher.observe(byId("end"));
  drawMore();
}

function drawMore() {
  if (drawn >= listed.length) return;
  const body = byId("samples").querySelector(hasImages ? ".tiles" : "tbody");
  for (const index of listed.slice(drawn, drawn + pageSize)) {
    const select = () => openSample(index);
    const isSelected = index === current;
    const values = sortedScores().map((name) => scores[name][index].toFixed(2));
    body.append(hasImages
      ? makeTile(index, [makeCaption(index), ...values], select, isSelected)
      : makeRow(index, [index, ...values], select, isSelected));
  }
  drawn += pageSize;
  // The watcher reports only changes. Observe the end again, because it may still be in view.
  watcher.unobserve(byId("end"));
  watcher.observe(byId("end"));
}

// The selected sample: label, prediction and scores, neighbours, contributions and influence.
function makeFacts(index) {
  const scoreFacts = Object.entries(scores).flatMap(([name, values]) => [
    makeElement("dt", {}, meanings[name][0]),
    makeElement("dd", { "data-fact": name }, values[index].toFixed(3)),
    makeElement("dd", { class: "meaning" }, meanings[name][1]),
  ]);
  const textFacts = Object.entries(texts).flatMap(([name, values]) => [
    makeElement("dt", {}, name),
    makeElement("dd", { "data-fact": name }, values[index]),
    makeElement("dd", { class: `meaning${isMismatch(index) ? " mismatch" : ""}` },
      name === "prediction" && isMismatch(index) ? "differs from the label" : ""),
  ]);
  return makeElement("dl", { class: "facts" }, ...textFacts, ...scoreFacts);
}

function makeContributions(index, place) {
  const values = contributions[index][place];
  const largest = Math.max(...values.map(Math.abs), 1e-9);
  // With negative contributions, the bars start in the middle.
  const zero = values.some((value) => value < 0) ? 50 : 0;
  const bars = values.flatMap((value, layer) => {
    const size = ((100 - zero) * Math.abs(value)) / largest;
    const bar = makeElement("span", { class: `bar ${value < 0 ? "negative" : "positive"}` });
    bar.style.width = `${size}%`;
    bar.style.left = `${value < 0 ? zero - size : zero}%`;
    return [
      makeElement("span", {}, layers[layer]),
      makeElement("span", { class: "track" }, bar),
      makeElement("span", { class: "number" }, value.toFixed(3)),
    ];
  });
  const sum = values.reduce((one, other) => one + other, 0);
  return [
    makeElement("h2", {}, `Contribution of each layer to the similarity of ${sum.toFixed(3)} to ` +
      `sample ${neighbors[index][place]}`),
    makeElement("div", { class: "bars", id: "contributions" }, ...bars),
  ];
}

// Samples with a value each, as tiles or as rows of a table. `select` opens the sample at a place.
function makeValued(indices, name, values, select, selected = -1) {
  const list = indices.map((index, place) => {
    const isSelected = place === selected;
    return hasImages
      ? makeTile(index, [values[place], makeCaption(index)], () => select(place), isSelected)
      : makeRow(index, [index, values[place]], () => select(place), isSelected);
  });
  const element = hasImages
    ? makeElement("div", { class: "tiles" }, ...list)
    : makeElement("table", {}, makeHeading(["sample", name]), ...list);
  return makeElement("div", { class: "scroll" }, element);
}

function makeNeighbours(index, place) {
  const values = similarities[index].map((similarity) => similarity.toFixed(3));
  const select = (other) => show(index, other);
  const element = makeValued(neighbors[index], "similarity", values, select, place);
  element.id = "neighbours";
  return element;
}

// The samples with the largest influence, and what it means; nothing without labels.
function makeInfluence(index) {
  if (!data.influence) return [];
  const format = (value) => `${value > 0 ? "+" : ""}${Number(value.toPrecision(2))}`;
  const lists = data.influence.lists.flatMap(({ heading, samples: shown, values }) => [
    makeElement("h2", {}, heading),
    makeValued(shown[index], "influence", values[index].map(format),
      (place) => openSample(shown[index][place])),
  ]);
  const note = makeElement("p", { class: "note" }, data.influence.note);
  return [makeElement("div", { id: "influence" }, ...lists, note)];
}

// Scroll the list to a sample, after drawing it if necessary.
function reveal(index) {
  const position = listed.indexOf(index);
  while (position >= drawn) drawMore();
  for (const item of byId("samples").querySelectorAll("[data-index]")) {
    const isSelected = Number(item.dataset.index) === index;
    item.classList.toggle("selected", isSelected);
    item.setAttribute("aria-current", isSelected);
    if (isSelected) item.scrollIntoView({ block: "nearest" });
  }
}

// Show a sample and put it into the address, so that the browser can go back.
function openSample(index) {
  show(index);
  location.hash = index;
}

function show(index, place = 0) {
  // The focused element is replaced, so its successor gets the focus at the end.
  const hasFocus = byId("details").contains(document.activeElement);
  const isSame = current === index;
  current = index;
  const follow = makeElement("button", { type: "button", id: "follow" }, "Go to this neighbour");
  follow.onclick = () => openSample(neighbors[index][place]);
  const row = () => makeElement("div", { class: "scroll" }, makeElement("table", { id: "whole" },
    makeHeading([]), makeRow(index, [], () => {}, false)));
  const head = hasImages
    ? makeElement("div", {},
      makeElement("div", { class: "head" }, makePicture(index, scaleTo(140)), makeFacts(index)),
      ...(columns.length ? [makeElement("p"), row()] : []))
    : makeElement("div", {}, row(), makeElement("p"), makeFacts(index));
  byId("details").replaceChildren(
    makeElement("h2", { id: "title", tabIndex: -1 }, `Sample ${index}`),
    head,
    makeElement("h2", {}, "Most similar samples (select one to see its contributions)"),
    makeNeighbours(index, place),
    ...makeContributions(index, place),
    makeElement("p", {}, follow),
    ...makeInfluence(index),
  );
  if (!isSame) reveal(index);
  byId("announcement").textContent =
    `Sample ${index}, contributions to the similarity to sample ${neighbors[index][place]}`;
  if (hasFocus) (isSame ? byId("neighbours").querySelector(".selected") : byId("title")).focus();
}

// The sample in the address, or the first one of the list.
function findSelected() {
  const index = Number.parseInt(location.hash.slice(1), 10);
  return index >= 0 && index < total ? index : listed[0] ?? 0;
}

function makeOption(value, text) {
  return makeElement("option", { value }, text);
}

// Values of labels begin with "=", because the empty value stands for all labels.
const labels = [...new Set(texts.label ?? [])];
labels.sort((a, b) => (Number(a) - Number(b)) || (a < b ? -1 : 1));
byId("label").append(
  makeOption("", "all"), ...labels.map((label) => makeOption(`=${label}`, label)),
);
byId("label").parentElement.hidden = labels.length < 2 || labels.length > 1000;
byId("mismatch").hidden = !data.mismatches.some(Boolean);
byId("order").append(makeOption("", "position"), ...Object.keys(scores).flatMap((name) => [
  makeOption(`${name} 1`, `${meanings[name][0]}, lowest first`),
  makeOption(`${name} -1`, `${meanings[name][0]}, highest first`),
]));
byId("controls").addEventListener("change", drawList);
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("skip").addEventListener("click", () => byId("title").focus());
window.addEventListener("hashchange", () => {
  if (findSelected() !== current) show(findSelected());
});
drawList();
show(findSelected());
