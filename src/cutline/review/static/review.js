// The review page. The list holds ids only; rows, details and images are loaded when shown.
// Whatever is shown is set as text, never as markup.

import { because, choices, clipping, longDescription, shown } from "./review-article.js";
import { $, STATES, ask, get, h, number, percent, post, save, say, server, several } from "./review-parts.js";

const PAGE = 40;
const WAITING = new Set(["waiting", "asked", "drafted", "found"]);
const OPEN = new Set(["asked", "drafted", "found"]);
const MAX = Number(document.body.dataset.max);
const DECIDED =
  "Your decisions are saved. Write them into your pages with cutline site apply, or review the rest.";

const filter = $("filter");
const article = $("article");
const state = { ids: [], sure: [], at: -1, rows: new Map(), use: null, listing: 0, turning: 0 };
const selected = new Set();
const done = new Set(); // decided since the list was made: they stay in it, but are passed over
const edits = unsaved("edits");
const longEdits = unsaved("long-edits");
const items = new Map(); // id -> the <li> that is shown
const tabs = new BroadcastChannel(location.pathname);
let anchor = null;

/** Texts that are written and not saved yet, by id. */
function unsaved(name) {
  return Object.assign(new Map(JSON.parse(sessionStorage.getItem(name) || "[]")), { name });
}

async function trying(work) {
  try {
    await work();
    if (!server.busy) $("trouble").hidden = true;
  } catch (error) {
    const again = h("button", { type: "button", onclick: () => trying(work) }, "Try again");
    $("trouble").replaceChildren(`Not loaded: ${error.message}. `, again);
    $("trouble").hidden = false;
  }
}

// The list

const here = () => state.ids[state.at];

function asked() {
  const fields = Object.fromEntries(new FormData(filter));
  for (const name of Object.keys(fields)) if (!fields[name].trim()) delete fields[name];
  return fields;
}

function query() {
  const fields = asked();
  for (const name of ["least", "most"]) if (fields[name]) fields[name] = Number(fields[name]) / 100;
  return fields;
}

async function list(keep) {
  const turn = (state.listing += 1);
  const { ids, sure } = await get("list", query());
  if (turn !== state.listing) return; // a later question is already under way
  Object.assign(state, { ids, sure, rows: new Map() });
  done.clear();
  items.clear();
  select([]);
  const extra = Object.keys(asked()).filter((name) => !["show", "search"].includes(name)).length;
  $("filtered").textContent = String(extra);
  $("filtered").hidden = !extra;
  $("count").textContent = ids.length ? several(ids.length, "image") : "No images";
  countSure();
  const at = ids.indexOf(keep);
  await show(at < 0 ? 0 : at, "stay");
}

async function rows() {
  const start = Math.floor(Math.max(state.at, 0) / PAGE) * PAGE;
  const ids = state.ids.slice(start, start + PAGE);
  const missing = ids.filter((id) => !state.rows.has(id));
  if (missing.length) {
    for (const row of await get("rows", { ids: missing.join(",") })) state.rows.set(row.id, row);
  }
  const shown = ids.filter((id) => state.rows.has(id));
  for (const id of items.keys()) if (!shown.includes(id)) items.delete(id);
  for (const id of shown) {
    if (!items.has(id)) items.set(id, item(state.rows.get(id)));
    refresh(id);
  }
  const wanted = shown.map((id) => items.get(id));
  const present = [...$("rows").children];
  if (wanted.length !== present.length || wanted.some((each, i) => each !== present[i])) {
    $("rows").replaceChildren(...wanted);
    $("rows").setAttribute("start", start + 1);
  }
  const last = Math.min(start + PAGE, state.ids.length);
  $("range").textContent = state.ids.length ? `${number(start + 1)} to ${number(last)}` : "";
  $("earlier").disabled = start === 0;
  $("later").disabled = last >= state.ids.length;
  $("range").parentElement.hidden = state.ids.length <= PAGE;
}

function thumbnail(row) {
  if (row.picture === null) return h("span", { class: "thumb none", "aria-hidden": "true" }, "?");
  const source = `pictures/${row.picture}?size=small`;
  return h("img", { class: row.whole ? "thumb whole" : "thumb", src: source, alt: "", loading: "lazy", decoding: "async" });
}

function item(row) {
  const check = h("input", {
    type: "checkbox",
    "aria-label": `Select ${row.name}`,
    onclick: (event) => tick(row.id, event.shiftKey, event.target.checked),
  });
  const open = () => trying(() => show(state.ids.indexOf(row.id), "heading"));
  return h(
    "li",
    { data: { id: row.id } },
    h("label", { class: "tick" }, check),
    h(
      "button",
      { type: "button", class: "open", onclick: open },
      thumbnail(row),
      h("span", { class: "about" }, h("span", { class: "say" }), h("span", { class: "meta" })),
    ),
  );
}

function refresh(id) {
  const element = items.get(id);
  if (!element) return;
  const row = state.rows.get(id);
  const [name, tone] = STATES[row.state];
  element.className = `row ${row.state}`;
  const sure = row.state === "drafted" && row.sure !== null ? percent(row.sure) : name;
  element.querySelector(".say").textContent = row.alt || (row.alt === "" ? 'alt=""' : row.name);
  element.querySelector(".say").classList.toggle("unsaid", !row.alt);
  element
    .querySelector(".meta")
    .replaceChildren(h("span", { class: `mark ${tone}` }, sure), " ", h("span", {}, row.alt === null ? "" : row.name));
  element.querySelector("input").checked = selected.has(id);
  const current = here() === id;
  element.classList.toggle("current", current);
  if (current) element.querySelector("button").setAttribute("aria-current", "true");
  else element.querySelector("button").removeAttribute("aria-current");
}

// Several at once

function select(ids) {
  selected.clear();
  for (const id of ids) selected.add(id);
  anchor = null;
  selection();
}

function selection() {
  $("bulk").hidden = !selected.size;
  $("selected").textContent = `${number(selected.size)} selected`;
  for (const [id, element] of items) {
    element.classList.toggle("selected", selected.has(id));
    element.querySelector("input").checked = selected.has(id);
  }
}

function tick(id, range, on) {
  const here = state.ids.indexOf(id);
  const from = range && anchor !== null ? state.ids.indexOf(anchor) : here;
  for (let i = Math.min(from, here); i <= Math.max(from, here); i += 1) {
    if (on) selected.add(state.ids[i]);
    else selected.delete(state.ids[i]);
  }
  anchor = id;
  selection();
  say(`${number(selected.size)} selected`);
}

async function bulk(verdict, ids, more) {
  const [status, result] = await save("reviews", { ids, verdict, ...more });
  if (status !== 200) return say(`Not done: ${result.detail}`);
  tabs.postMessage("changed");
  progress();
  await trying(() => list(here()));
  const left = result.left ? `; ${number(result.left)} not changed` : "";
  say(`${several(result.done, "image")} ${STATES[verdict][0]}${left}. You can undo all of it.`);
}

async function bulkSelected(verdict) {
  const many = selected.size > 20;
  const what = { approved: "Approve the suggestions for", decorative: "Make decorative:", skipped: "Skip" };
  if (many && !(await ask(`${what[verdict]} ${number(selected.size)} images?`, "You can undo this."))) {
    return;
  }
  await bulk(verdict, [...selected]);
}

function sureIds() {
  const least = Number($("least").value) / 100;
  return state.ids.filter((id, i) => {
    return state.sure[i] !== null && state.sure[i] >= least - 1e-9 && !done.has(id);
  });
}

function countSure() {
  const count = sureIds().length;
  $("sure-go").textContent = `Approve ${number(count)}`;
  $("sure-go").disabled = !count;
  $("sure").hidden = !state.sure.some((each) => each !== null);
}

// One image

async function show(at, focus) {
  state.at = state.ids.length ? Math.max(0, Math.min(at, state.ids.length - 1)) : -1;
  const id = here();
  const old = document.activeElement;
  const held = old?.dataset?.act;
  const inQueue = $("rows").contains(old) && focus !== "heading";
  place(id);
  if (id === undefined) {
    await rows();
    const all = WAITING.has(asked().show) && Object.keys(asked()).length === 1;
    if (all) return end("Nothing left to review", DECIDED, focus);
    return end("Nothing here", "No image matches these filters.", focus);
  }
  state.turning += 1; // nobody decides on what is not yet before them
  const [use] = await Promise.all([get(`uses/${id}`), rows()]).finally(() => (state.turning -= 1));
  if (here() !== id) return; // gone on meanwhile
  state.use = use;
  state.rows.set(id, use);
  refresh(id);
  paint();
  const row = items.get(id);
  const queue = $("rows");
  if (row) {
    const inside = { top: row.offsetTop - queue.clientHeight / 3, left: row.offsetLeft - 80 };
    queue.scrollTo(inside);
  }
  const again = held && article.querySelector(`[data-act="${held}"]:not(:disabled)`);
  if (inQueue && row) row.querySelector("button").focus({ preventScroll: true });
  else if (again) again.focus({ preventScroll: true });
  else if (focus !== "stay" || (old && !old.isConnected)) heading();
  const next = state.rows.get(state.ids[state.at + 1]);
  if (next && next.picture !== null) new Image().src = `pictures/${next.picture}`;
}

function heading() {
  $("name").focus({ preventScroll: true });
  if (matchMedia("(max-width: 60rem)").matches) article.scrollIntoView({ block: "start" });
  else article.scrollTop = 0;
}

function place(id) {
  const fields = new URLSearchParams(asked());
  if (id !== undefined) fields.set("at", id);
  history.replaceState(null, "", `#${fields}`);
}

function end(title, text, focus) {
  state.use = null;
  article.hidden = true;
  $("end").hidden = false;
  $("end-title").textContent = title;
  $("end-text").textContent = text;
  $("all").hidden = asked().show === "all" && Object.keys(asked()).length === 1;
  if (focus !== "stay") $("end").focus();
}

const words = () => (state.use ? (edits.get(state.use.id) ?? state.use.alt) : null);
const longText = () => (state.use ? (longEdits.get(state.use.id) ?? state.use.long_description) : null);
const edited = () => edits.has(state.use.id) && edits.get(state.use.id) !== (state.use.alt ?? "");
const longEdited = () => longEdits.has(state.use.id) && longEdits.get(state.use.id) !== state.use.long_description;

function keep(text, where = edits) {
  if (text === null) where.delete(state.use.id);
  else where.set(state.use.id, text);
  sessionStorage.setItem(where.name, JSON.stringify([...where]));
}

function paint() {
  const use = state.use;
  $("end").hidden = true;
  article.hidden = false;
  const [name, tone] = STATES[use.state];
  const position = `${number(state.at + 1)} of ${number(state.ids.length)}`;
  article.replaceChildren(
    h(
      "header",
      { class: "about" },
      h("h2", { id: "name", tabindex: "-1", "aria-describedby": "words" }, use.name),
      h(
        "p",
        { class: "meta" },
        h("span", { class: `badge ${tone}` }, name),
        use.stale ? h("span", { class: "badge warn" }, "suggestion out of date") : null,
        use.applied ? h("span", { class: "badge good" }, "in the page") : null,
        h("span", { class: "faint" }, position),
        use.same ? h("button", { type: "button", class: "plain", data: { act: "same" }, onclick: onlyPicture }, `also in ${several(use.same, "other place")}`) : null,
      ),
    ),
    clipping(use, filter.elements.page.value, onlyPage),
    h(
      "div",
      { class: "side" },
      h("section", { class: "answer", id: "answer", "aria-label": "Alt text" }),
      choices(use, take),
      because(use),
    ),
  );
  answer();
}

function answer() {
  const use = state.use;
  const text = words();
  const writing = edits.has(use.id) || (text === null && use.state !== "kept");
  $("answer").replaceChildren(
    writing ? field(text ?? "") : shown(use, text, edit),
    h(
      "p",
      { class: "gauge" },
      h("span", { id: "length" }),
      use.sure !== null && use.sure !== undefined && !writing
        ? h("span", { class: "sureness", title: "Probability that a suggestion like this fits" }, meter(use.sure), `${percent(use.sure)} sure`)
        : null,
    ),
    h("ul", { id: "findings", class: "findings", "aria-live": "polite", "aria-label": "Checks" }),
    longText() === null ? "" : longDescription(longText(), longEdits.has(use.id), describe, (text) => keep(text, longEdits)),
    buttons(use),
  );
  measure(text);
  findings(use.findings);
  if (writing && text) check();
}

function meter(share) {
  const part = h("span", {});
  part.style.width = `${share * 100}%`;
  return h("span", { class: "meter", "aria-hidden": "true" }, part);
}

function field(text) {
  const area = h("textarea", {
    id: "words",
    class: "big",
    rows: 3,
    "aria-label": "Alt text",
    "aria-describedby": "length",
    placeholder: state.use.purpose === "functional" ? "Where does it lead? What does it do?" : "Describe the image for people who cannot see it",
    oninput: (event) => {
      keep(event.target.value);
      measure(event.target.value);
      for (const name of ["approve", "alike"]) {
        const button = article.querySelector(`[data-act="${name}"]`);
        if (button) button.disabled = !event.target.value.trim();
      }
      clearTimeout(checking);
      checking = setTimeout(check, 150);
    },
  });
  area.value = text;
  const draft = state.use.draft;
  return h("div", {}, area, draft && draft !== text ? h("p", { class: "faint small" }, `Suggested: ${draft}`) : null);
}

function measure(text) {
  const length = [...(text ?? "").trim()].length;
  $("length").textContent = `${length} of ${MAX} characters`;
  $("length").className = length > MAX ? "warn" : "faint";
}

let checking;
async function check() {
  const { id } = state.use;
  const text = words() ?? "";
  try {
    const result = await (await post(`uses/${id}/lint`, { alt: text })).json();
    if (state.use?.id === id && (words() ?? "") === text) findings(text.trim() ? result : []);
  } catch {
    // the words are kept, and are checked again with the next key
  }
}

function findings(found) {
  const shown = found.map((each) =>
    h("li", { class: each.severity }, h("strong", {}, `${each.severity[0].toUpperCase()}${each.severity.slice(1)}: `), each.message, h("span", { class: "faint" }, ` (${each.reference})`)),
  );
  $("findings").replaceChildren(...shown);
  $("findings").hidden = !shown.length;
}

function buttons(use) {
  const text = words();
  const act = (name, key, label, work, more) =>
    h("button", { type: "button", data: { act: name }, "aria-keyshortcuts": key, onclick: work, ...more }, `${label} `, h("kbd", { "aria-hidden": "true" }, key));
  const writing = edits.has(use.id) || longEdits.has(use.id) || text === null;
  const nothing = text === null || (edits.has(use.id) && !text.trim()) || (use.state === "kept" && !edits.has(use.id));
  return h(
    "div",
    { class: "acts", role: "group", "aria-label": "Decide" },
    act("approve", writing ? "Ctrl ↵" : "a", writing ? "Save" : "Approve", approve, { class: "primary", disabled: nothing, "aria-keyshortcuts": writing ? "Control+Enter" : "a" }),
    edits.has(use.id) || text === null ? null : act("edit", "e", "Edit", edit),
    act("decorative", "d", "Decorative", () => decide("decorative", "")),
    act("skip", "s", "Skip", () => decide("skipped", null)),
    use.same && OPEN.has(use.state) ? act("alike", "w", "Everywhere", () => trying(alike), { disabled: nothing }) : null,
  );
}

// What a person does

let counting = "";

function edit() {
  if (!state.use || state.turning) return;
  if (!edits.has(state.use.id) && words() !== null) keep(words());
  answer();
  const area = article.querySelector("textarea");
  if (!area) {
    keep("");
    return edit();
  }
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}

function describe() {
  if (!state.use || state.turning) return;
  if (longText() === null) return say("This image needs no long description.");
  keep(longText(), longEdits);
  answer();
  $("long").focus();
}

function leave() {
  if (!edited()) keep(null);
  if (!longEdited()) keep(null, longEdits);
  answer();
  heading();
}

function take(i) {
  const candidate = state.use?.candidates[i];
  if (!candidate || state.turning) return;
  keep(candidate.text);
  answer();
  check();
  article.querySelector('[data-act="approve"]').focus({ preventScroll: true });
  say(`Taken: ${candidate.text} Approve it, or edit it.`);
}

function approve() {
  const text = words();
  if (text === null || (edits.has(state.use.id) && !text.trim())) {
    edit();
    return say("Write a text first.");
  }
  if (state.use.state === "kept" && !edits.has(state.use.id)) {
    return say("Nothing to approve: the present alt is kept. Edit it to change it.");
  }
  return decide("approved", text);
}

async function decide(verdict, alt) {
  if (server.busy || state.turning || !state.use) return;
  const { id, seen, context } = state.use;
  const there = context.stands;
  const review = { verdict, alt, seen, there, long_description: longText() };
  const [status, result] = await save(`uses/${id}/review`, review);
  if (status === 409) {
    state.rows.set(id, result.row);
    await trying(() => show(state.at, "heading"));
    return say(`Not saved: another tab has ${STATES[result.row.state][0]} it in the meantime. Check it and decide again.`);
  }
  if (status !== 200) return say(`Not saved: ${result.detail}`);
  keep(null);
  keep(null, longEdits);
  state.rows.set(id, result.row);
  done.add(id);
  refresh(id);
  tabs.postMessage("changed");
  progress();
  countSure();
  const name = result.row.state;
  const left = WAITING.has(asked().show) ? ` ${number(state.ids.length - done.size)} left.` : "";
  say(`${name[0].toUpperCase()}${name.slice(1)}.${left}`);
  await trying(next);
}

async function next() {
  if (!WAITING.has(asked().show)) {
    if (state.at + 1 < state.ids.length) return show(state.at + 1, "next");
    return show(state.at, "next");
  }
  const after = state.ids.findIndex((id, i) => i > state.at && !done.has(id));
  const any = after < 0 ? state.ids.findIndex((id) => !done.has(id)) : after;
  if (any >= 0) return show(any, "next");
  for (const id of items.keys()) refresh(id);
  end("End of the list", DECIDED, "end");
}

async function move(by) {
  const at = state.at + by;
  if (at < 0 || at >= state.ids.length) return say(by < 0 ? "This is the first." : "This is the last.");
  await show(at, "next");
}

async function undo() {
  if (server.busy) return;
  const [status, result] = await save("undo", {});
  if (status !== 200) return say(`Not undone: ${result.detail}`);
  tabs.postMessage("changed");
  progress();
  if (!result.ids.length) return say("Nothing to undo.");
  const [first] = result.ids;
  for (const id of result.ids) {
    done.delete(id);
    state.rows.delete(id);
  }
  if (result.ids.length > 1 || !state.ids.includes(first)) {
    await trying(() => list(first));
    if (!state.ids.includes(first)) {
      state.ids.splice(Math.max(state.at, 0), 0, first);
      state.sure.splice(Math.max(state.at, 0), 0, null);
    }
  }
  await trying(() => show(state.ids.indexOf(first), "next"));
  say(result.ids.length > 1 ? `Undone: ${several(result.ids.length, "image")}.` : `Undone: ${state.use?.name}.`);
}

/** Same text wherever this image waits for the same purpose: logos, icons, buttons. */
async function alike() {
  if (server.busy || state.turning || !state.use?.same) return;
  const { id, group, purpose } = state.use;
  const alt = words();
  if (alt === null || (edits.has(id) && !alt.trim())) {
    edit();
    return say("Write a text first.");
  }
  const { ids } = await get("list", { show: "waiting", group, purpose });
  if (!ids.length) return say("No other occurrence waits for a review.");
  const said = alt ? `“${alt}”` : "Decorative";
  if (!(await ask(`The same in ${several(ids.length, "place")}?`, `${said}, wherever this image waits for a review and has the same purpose. You can undo all of it.`))) {
    return;
  }
  const more = longEdits.has(id) ? { alt, long_description: longText() } : { alt };
  keep(null);
  keep(null, longEdits);
  await bulk("approved", ids, more);
}

function onlyPage() {
  if (!state.use) return;
  filter.elements.page.value = filter.elements.page.value ? "" : state.use.page;
  return trying(() => list(state.use.id));
}

function onlyPicture() {
  if (!state.use?.group) return;
  const group = filter.elements.group;
  group.value = group.value ? "" : state.use.group;
  if (group.value) $("show").value = "all";
  return trying(() => list(state.use.id));
}

/** How far the site is; it takes a moment on a large one, and nothing waits for it. */
async function progress() {
  if (counting) return (counting = "again");
  counting = "now";
  const result = await get("progress").catch(() => null);
  const again = counting === "again";
  counting = "";
  if (again) progress();
  if (!result) return;
  $("bar").max = Math.max(result.total, 1);
  $("bar").value = result.reviewed;
  const asking = result.asked === 1 ? "1 needs" : `${number(result.asked)} need`;
  $("progress").textContent = `${number(result.reviewed)} of ${number(result.total)} reviewed; ${asking} text`;
}

// Keys

const KEYS = {
  a: () => (selected.size ? bulkSelected("approved") : approve()),
  Enter: () => (selected.size ? null : approve()),
  e: edit,
  l: describe,
  d: () => (selected.size ? bulkSelected("decorative") : decide("decorative", "")),
  s: () => (selected.size ? bulkSelected("skipped") : decide("skipped", null)),
  w: () => trying(alike),
  u: undo,
  j: () => trying(() => move(1)),
  k: () => trying(() => move(-1)),
  J: () => extend(1),
  K: () => extend(-1),
  n: () => trying(next),
  x: () => state.use && tick(here(), false, !selected.has(here())),
  A: () => {
    select(state.ids);
    say(`${number(selected.size)} selected`);
  },
  "[": () => trying(() => turn(-1)),
  "]": () => trying(() => turn(1)),
  "/": () => $("search").focus(),
  f: () => {
    $("more").open = true;
    $("more").querySelector("select").focus();
  },
  g: onlyPage,
  p: onlyPicture,
  "?": () => $("help").showModal(),
};

async function extend(by) {
  if (!state.use) return;
  selected.add(here());
  await trying(() => move(by));
  selected.add(here());
  anchor = here();
  selection();
}

function turn(by) {
  const start = Math.floor(Math.max(state.at, 0) / PAGE) * PAGE + by * PAGE;
  if (start >= 0 && start < state.ids.length) return show(start, "next");
}

const TYPED = "textarea, select, input:not([type=checkbox])";

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const typing = event.target.matches?.(TYPED);
  if (event.key === "Escape") {
    if (["words", "long"].includes(event.target.id)) leave();
    else if (typing) event.target.blur();
    else if (selected.size) select([]);
    else return;
    event.preventDefault();
    return;
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && ["words", "long"].includes(event.target.id)) {
    event.preventDefault();
    approve();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (!$("single").checked && event.key !== "?") return;
  if (event.key === "Enter" && event.target.closest("button, a, summary, label, input")) return;
  const work = /^[1-9]$/.test(event.key) ? () => take(Number(event.key) - 1) : KEYS[event.key];
  if (!work || (event.repeat && !"jkJK".includes(event.key))) return;
  event.preventDefault();
  work();
});

// The page's other controls

let searching;
filter.addEventListener("submit", (event) => event.preventDefault());
filter.addEventListener("input", (event) => {
  clearTimeout(searching);
  if (event.target.id === "page") {
    trying(async () => {
      const found = await get("pages", { like: event.target.value });
      $("pages").replaceChildren(...found.map((url) => h("option", { value: url })));
    });
  }
  const wait = event.target.matches("select") ? 0 : 250;
  if (!filter.checkValidity()) return;
  searching = setTimeout(() => trying(() => list(here())), wait);
});
$("clear").addEventListener("click", () => {
  const shown = $("show").value;
  filter.reset();
  filter.elements.group.value = "";
  $("show").value = shown;
  trying(() => list(here()));
});
$("all").addEventListener("click", () => {
  filter.reset();
  filter.elements.group.value = "";
  $("show").value = "all";
  trying(async () => {
    await list();
    heading();
  });
});
$("bulk").addEventListener("click", (event) => {
  const verdict = event.target.dataset.bulk;
  if (verdict) bulkSelected(verdict);
});
$("unselect").addEventListener("click", () => select([]));
$("undo").addEventListener("click", undo);
$("keys").addEventListener("click", () => $("help").showModal());
$("earlier").addEventListener("click", () => trying(() => turn(-1)));
$("later").addEventListener("click", () => trying(() => turn(1)));
$("least").addEventListener("input", countSure);
$("sure").addEventListener("submit", async (event) => {
  event.preventDefault();
  const ids = sureIds();
  const least = Number($("least").value);
  const title = `Approve ${several(ids.length, "suggestion")}?`;
  const text = `Those of this list that are at least ${least} % sure, unseen. You can undo all of it.`;
  if (await ask(title, text)) await bulk("approved", ids, { least: least / 100 });
});
$("single").checked = localStorage.getItem("single") !== "off";
$("single").addEventListener("change", (event) => {
  localStorage.setItem("single", event.target.checked ? "on" : "off");
});

async function again() {
  if (server.busy) return;
  progress();
  const shown = [...items.keys()];
  if (shown.length) {
    for (const row of await get("rows", { ids: shown.join(",") })) {
      state.rows.set(row.id, row);
      refresh(row.id);
    }
  }
  const use = state.use && (await get(`uses/${state.use.id}`));
  const typing = article.contains(document.activeElement);
  if (use && state.use?.id === use.id && use.seen !== state.use.seen && !typing) {
    state.use = use;
    paint();
  }
}
tabs.addEventListener("message", () => trying(again));
document.addEventListener("visibilitychange", () => document.hidden || trying(again));

trying(async () => {
  const start = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of start) if (filter.elements[name]) filter.elements[name].value = value;
  progress();
  await list(Number(start.get("at")));
});
