"use strict";

// Regions: draw a box on a picture with a mouse, a finger or the keyboard, and read its words.

const STEP = 2; // percent that an arrow key moves or resizes by
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#b3121d"];

results.addEventListener("click", (event) => {
  const button = event.target.closest("[data-regions]");
  if (!button) return;
  const card = button.closest(".result");
  if (button.dataset.regions === "draw") toggleDrawing(card, button);
  else describe(card, null);
});

function toggleDrawing(card, button) {
  const stage = $(".stage", card);
  const old = $(".drawing", stage);
  button.setAttribute("aria-pressed", String(!old));
  if (old) { old.remove(); return; }
  const layer = element("div", "", "drawing");
  const box = element("div", "", "draft");
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-roledescription", "box");
  layer.append(box);
  stage.append(layer);
  place(box, { x: 25, y: 25, width: 50, height: 50 });
  drawWithPointer(card, layer, box);
  box.addEventListener("keydown", (event) => drawWithKeys(event, card, box, button));
  box.focus();
  say("Arrow keys move the box, with Shift they resize it. Enter describes it, Escape ends drawing.");
}

function place(box, { x, y, width, height }) {
  const clean = {
    x: clamp(x, 0, 99), y: clamp(y, 0, 99),
    width: clamp(width, 1, 100 - clamp(x, 0, 99)), height: clamp(height, 1, 100 - clamp(y, 0, 99)),
  };
  box.percent = clean;
  box.style.left = `${clean.x}%`;
  box.style.top = `${clean.y}%`;
  box.style.width = `${clean.width}%`;
  box.style.height = `${clean.height}%`;
  const rounded = Object.values(clean).map(Math.round);
  box.setAttribute("aria-label", `Box: left ${rounded[0]} %, top ${rounded[1]} %, width ${rounded[2]} %, height ${rounded[3]} %`);
}

function drawWithPointer(card, layer, box) {
  let from = null;
  const at = (event) => {
    const area = layer.getBoundingClientRect();
    return {
      x: clamp(100 * (event.clientX - area.left) / area.width, 0, 100),
      y: clamp(100 * (event.clientY - area.top) / area.height, 0, 100),
    };
  };
  layer.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    layer.setPointerCapture(event.pointerId);
    from = at(event);
  });
  layer.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = at(event);
    place(box, {
      x: Math.min(from.x, to.x), y: Math.min(from.y, to.y),
      width: Math.abs(to.x - from.x), height: Math.abs(to.y - from.y),
    });
  });
  layer.addEventListener("pointerup", (event) => {
    const to = from && at(event);
    const drawn = from && Math.abs(to.x - from.x) > 1 && Math.abs(to.y - from.y) > 1;
    from = null;
    if (drawn) describe(card, box.percent);
    box.focus();
  });
  layer.addEventListener("pointercancel", () => { from = null; });
}

function drawWithKeys(event, card, box, button) {
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  const now = box.percent;
  if (event.key === "Enter") describe(card, now);
  else if (event.key === "Escape") { toggleDrawing(card, button); button.focus(); }
  else if (moves[event.key]) {
    const [right, down] = moves[event.key];
    if (event.shiftKey) place(box, { ...now, width: now.width + right, height: now.height + down });
    else {
      place(box, {
        ...now, x: clamp(now.x + right, 0, 100 - now.width), y: clamp(now.y + down, 0, 100 - now.height),
      });
    }
  } else return;
  event.preventDefault();
}

async function describe(card, percent) {
  const text = percent && ["x", "y", "width", "height"].map((name) => `${percent[name].toFixed(2)}%`).join(",");
  const headers = {};
  if ($("#key").value) headers["X-API-Key"] = $("#key").value;
  const { file, url } = card.picture;
  let body;
  if (file) {
    body = new FormData();
    body.append("image", file, file.name || "pasted.png");
    if (text) body.append("boxes", text);
  } else {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify({ image: { url }, ...(text ? { boxes: [text] } : {}) });
  }
  const list = $(".regions ol", card);
  $(".regions", card).hidden = false;
  card.setAttribute("aria-busy", "true");
  try {
    const response = await fetch("v1/regions", { method: "POST", headers, body });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw answer;
    if (!percent) clearRegions(card);
    for (const region of answer.regions) addRegion(card, list, region, answer);
    say(answer.regions.map((region) => region.phrase).join(". ") || "No region was found.");
  } catch (problem) {
    say(`${problem.title || "No answer"}. ${problem.detail || "The server can't be reached."}`);
    const line = element("li", `${problem.title || "No answer"}. ${problem.detail || ""}`, "bad");
    list.append(line);
  }
  card.removeAttribute("aria-busy");
}

function clearRegions(card) {
  $(".regions ol", card).replaceChildren();
  for (const box of card.querySelectorAll(".stage .region")) box.remove();
}

function addRegion(card, list, region, { width, height }) {
  const [x, y, across, down] = region.bbox;
  const colour = COLOURS[list.children.length % COLOURS.length];
  const box = element("div", "", "region");
  box.setAttribute("aria-hidden", "true");
  box.style.cssText = `left:${100 * x / width}%;top:${100 * y / height}%;width:${100 * across / width}%;height:${100 * down / height}%;border-color:${colour}`;
  $(".stage", card).append(box);
  const item = element("li", "");
  const button = element("button", region.phrase);
  button.type = "button";
  button.style.borderLeftColor = colour;
  button.append(element("span", ` ${[region.label, region.confidence.toFixed(2)].filter(Boolean).join(", ")}`, "faint"));
  const light = (on) => { box.classList.toggle("on", on); button.classList.toggle("on", on); };
  for (const name of ["mouseenter", "focus"]) button.addEventListener(name, () => light(true));
  for (const name of ["mouseleave", "blur"]) button.addEventListener(name, () => light(false));
  item.append(button);
  list.append(item);
}

function clamp(value, least, most) {
  return Math.min(Math.max(value, least), most);
}
