"use strict";

const AT_ONCE = 3;
const $ = (selector, within = document) => within.querySelector(selector);
const results = $("#results");
const waiting = []; // cards in line for the server
let busy = 0, asked = 0, answered = 0, lastPart = "";

// ---- in: files, drops, pastes, addresses

for (const input of [$("#files"), $("#camera")]) {
  input.addEventListener("change", () => { take(input.files); input.value = ""; });
}
const drop = $("#drop");
let over = 0;
addEventListener("dragenter", (event) => { event.preventDefault(); over += 1; drop.classList.add("over"); });
addEventListener("dragleave", () => { over -= 1; if (over <= 0) drop.classList.remove("over"); });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  over = 0;
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  else takeUrl(event.dataTransfer.getData("text/uri-list").split("\n")[0]);
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) {
    event.preventDefault();
    take(event.clipboardData.files);
  }
});
$("#by-url")?.addEventListener("submit", (event) => {
  event.preventDefault();
  takeUrl($("#url").value.trim());
  $("#url").value = "";
});
$("#ask-key").addEventListener("submit", (event) => {
  event.preventDefault();
  $("#ask-key").hidden = true;
  for (const card of document.querySelectorAll(".result[data-code=unauthorized]")) enqueue(card);
  results.focus();
});

function take(files) {
  const videos = [...files].filter((file) => file.type.startsWith("video/"));
  if (typeof takeVideo === "function") videos.forEach(takeVideo);
  const pictures = [...files].filter((file) => !videos.includes(file));
  for (const file of pictures) {
    const card = makeCard(file.name || "pasted image", URL.createObjectURL(file));
    card.picture = { file };
    enqueue(card);
  }
  if (pictures.length > 1) say(`${pictures.length} images are being captioned.`);
}

function takeUrl(url) {
  if (!url) return;
  const card = makeCard(url, url);
  card.picture = { url };
  enqueue(card);
}

// ---- to the server and back

function enqueue(card) {
  if (!card.isConnected) results.prepend(card);
  show(card, "waiting");
  waiting.push(card);
  asked += 1;
  progress();
  next();
}

async function next() {
  if (busy >= AT_ONCE || !waiting.length) return;
  busy += 1;
  const card = waiting.shift();
  try {
    if (card.isConnected) fill(card, await ask(card.picture));
  } catch (problem) {
    fail(card, problem);
  }
  busy -= 1;
  answered += 1;
  progress();
  next();
}

async function ask({ file, url }) {
  const nBest = number("#n-best", 4);
  const options = { n_best: nBest, beam: Math.max(number("#beam", 5), nBest), attention: true };
  const context = $("#context").value.trim();
  if (context) options.context = context;
  const headers = {};
  const key = $("#key").value;
  if (key) headers["X-API-Key"] = key;
  let body;
  if (file) {
    const most = Number(document.body.dataset.maxMb);
    if (file.size > most * 1e6) throw { title: "Too large", detail: `It has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${most} MB.` };
    body = new FormData();
    body.append("image", file, file.name || "pasted.png");
    for (const [name, value] of Object.entries(options)) body.append(name, value);
  } else {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify({ images: [{ url }], options });
  }
  let response;
  try {
    response = await fetch("v1/captions", { method: "POST", headers, body });
  } catch {
    throw { title: "No answer", detail: "The server cannot be reached. Check that it is running." };
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    if (answer.code === "unauthorized") $("#ask-key").hidden = false;
    throw { title: answer.title || `HTTP ${response.status}`, detail: answer.detail || "", code: answer.code };
  }
  const [result] = answer.results;
  if (result.status !== "ok") throw result.error;
  return { ...result, model: answer.model };
}

// ---- cards

function makeCard(source, picture) {
  const card = $("#card").content.firstElementChild.cloneNode(true);
  const heading = $(".source", card);
  heading.textContent = source;
  heading.id = `source-${Math.random().toString(36).slice(2)}`;
  card.setAttribute("aria-labelledby", heading.id);
  const image = $("img", card);
  image.referrerPolicy = "no-referrer";
  image.src = picture;
  image.addEventListener("error", () => { $(".stage", card).hidden = true; });
  $(".remove", card).addEventListener("click", () => remove(card));
  $(".again", card).addEventListener("click", () => { enqueue(card); $(".remove", card).focus(); });
  for (const button of card.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(card, button));
  }
  return card;
}

function show(card, state) {
  $(".waiting", card).hidden = state !== "waiting";
  $(".failure", card).hidden = state !== "failure";
  $(".found", card).hidden = state !== "found";
  $(".again", card).hidden = state === "waiting";
  card.setAttribute("aria-busy", String(state === "waiting"));
  if (state !== "failure") delete card.dataset.code;
}

function fail(card, problem) {
  show(card, "failure");
  const [title, detail] = card.querySelectorAll(".failure p");
  title.firstElementChild.textContent = problem.title || "Error";
  detail.textContent = problem.detail || String(problem);
  if (problem.code) card.dataset.code = problem.code;
  say(`${$(".source", card).textContent}: ${title.textContent}. ${detail.textContent}`);
}

function fill(card, result) {
  card.result = result;
  show(card, "found");
  $("img", card).alt = result.caption;
  $(".sentence-text", card).textContent = result.caption;
  const looked = result.attention && result.attention.grid;
  spell($(".sentence", card), card, looked ? result.attention : { words: result.caption.replace(/\.$/, "").split(" ") }, looked);
  $(".hint", card).hidden = !looked;

  const others = $(".others", card);
  others.hidden = !result.alternatives.length;
  $("ol", others).replaceChildren(...result.alternatives.map(({ caption }) => element("li", caption)));
  const labels = $(".labels", card);
  labels.hidden = !result.labels.length;
  $("ul", labels).replaceChildren(...result.labels.map(({ name, probability }) =>
    element("li", `${name} ${Math.round(100 * probability)} %`, "badge")));
  say(`${$(".source", card).textContent}: ${result.caption}`);
}

function remove(card) {
  const after = card.nextElementSibling || card.previousElementSibling;
  if ($("img", card).src.startsWith("blob:")) URL.revokeObjectURL($("img", card).src);
  card.remove();
  say("Removed.");
  (after ? $(".remove", after) : $("#files")).focus();
}

// ---- words and where the model looked

function spell(sentence, card, { words, weights, grid }, looked) {
  let chosen = -1;
  const buttons = words.map((word, place) => {
    const first = place === 0 ? word[0].toUpperCase() + word.slice(1) : word;
    const button = element("button", first + (place === words.length - 1 ? "." : ""));
    button.type = "button";
    button.disabled = !looked;
    button.classList.toggle("joined", place > 0 && (word.startsWith("'") || word === "n't"));
    button.tabIndex = place ? -1 : 0;
    if (!looked) return button;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("mouseenter", () => light(place));
    button.addEventListener("mouseleave", () => light(chosen));
    button.addEventListener("focus", () => { chosen = place; light(place); });
    button.addEventListener("click", () => { chosen = place; light(place); });
    return button;
  });
  const light = (place) => {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === place)));
    const canvas = $("canvas", card);
    canvas.classList.toggle("on", place >= 0);
    if (place >= 0) paint(canvas, weights[place], grid);
  };
  sentence.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") { chosen = -1; light(-1); }
    if (step === undefined || !looked) return;
    event.preventDefault();
    const place = Math.max(0, Math.min(words.length - 1, chosen + step));
    buttons.forEach((button, i) => { button.tabIndex = i === place ? 0 : -1; });
    buttons[place].focus();
  };
  sentence.onfocusout = (event) => {
    if (!sentence.contains(event.relatedTarget)) { chosen = -1; light(-1); }
  };
  sentence.replaceChildren(...buttons);
}

// Amber where the model looked, dark where it did not; the browser smooths the cells.
function paint(canvas, weights, [rows, columns]) {
  const small = new OffscreenCanvas(columns, rows);
  const pixels = new ImageData(columns, rows);
  const most = Math.max(...weights, 1e-12);
  weights.forEach((weight, i) => {
    const glow = 0.3 * (weight / most) ** 2, shade = 0.6 * (1 - weight / most), all = glow + shade;
    [255, 176, 32].forEach((value, channel) => { pixels.data[4 * i + channel] = value * glow / all; });
    pixels.data[4 * i + 3] = 255 * all;
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  canvas.width = 24 * columns;
  canvas.height = 24 * rows;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
}

// ---- out

async function copy(card, button) {
  const { caption } = card.result;
  const escaped = caption.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;");
  const text = {
    text: () => caption,
    alt: () => `alt="${escaped}"`,
    json: () => JSON.stringify(card.result, null, 1),
  }[button.dataset.copy]();
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyOldWay(text); // no clipboard without https, but for loopback
  }
  say("Copied.");
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = said; }, 1500);
}

function copyOldWay(text) {
  const area = element("textarea", text, "visually-hidden");
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  focused?.focus();
}

function progress() {
  const line = $("#progress");
  if (answered === asked) { asked = answered = 0; }
  line.hidden = asked < 2;
  $("progress", line).max = Math.max(asked, 1);
  $("progress", line).value = answered;
  $("span", line).textContent = `${answered} of ${asked} captioned`;
}

function say(text) {
  lastPart = text === lastPart ? `${text}\u00a0` : text; // the same words twice are spoken twice
  $("#spoken").textContent = lastPart;
}

function number(selector, otherwise) {
  const input = $(selector);
  return input.value && input.checkValidity() ? Number(input.value) : otherwise;
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}
