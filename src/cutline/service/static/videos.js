"use strict";

// Videos: each shot is shown as soon as the server has described it.

$("#video-file").addEventListener("change", () => {
  for (const file of $("#video-file").files) takeVideo(file);
  $("#video-file").value = "";
});

async function takeVideo(file) {
  const card = $("#video-card").content.firstElementChild.cloneNode(true);
  $(".source", card).textContent = file.name || "video";
  const player = $("video", card);
  player.src = URL.createObjectURL(file);
  const leaving = new AbortController();
  $(".remove", card).addEventListener("click", () => {
    leaving.abort();
    URL.revokeObjectURL(player.src);
    card.remove();
    say("Removed.");
    $("#video-file").focus();
  });
  results.prepend(card);
  const body = new FormData();
  body.append("video", file, file.name || "video");
  body.append("summary", "true");
  const headers = $("#key").value ? { "X-API-Key": $("#key").value } : {};
  try {
    const response = await fetch("v1/videos", { method: "POST", headers, body, signal: leaving.signal });
    if (!response.ok) throw await response.json().catch(() => ({}));
    for await (const { kind, data } of events(response.body)) showEvent(card, player, kind, data);
  } catch (problem) {
    if (leaving.signal.aborted) return;
    if (problem.code === "unauthorized") $("#ask-key").hidden = false;
    showEvent(card, player, "problem", { title: problem.title || "No answer", detail: problem.detail || "The server can't be reached." });
  }
  $(".waiting", card).hidden = true;
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const kind = /^event: (.*)$/m.exec(block), data = /^data: (.*)$/m.exec(block);
      if (kind && data) yield { kind: kind[1], data: JSON.parse(data[1]) };
    }
  }
}

function showEvent(card, player, kind, data) {
  if (kind === "shot") {
    const item = element("li", "");
    const button = element("button", `${clock(data.start)} to ${clock(data.end)}`);
    button.type = "button";
    button.addEventListener("click", () => { player.currentTime = data.start + 0.01; });
    item.append(button, element("span", ` ${data.caption}`));
    $("ol", card).append(item);
    say(`${clock(data.start)}: ${data.caption}`);
  } else if (kind === "progress") {
    $(".waiting", card).textContent = `Read ${clock(data.seconds)} …`;
  } else if (kind === "problem") {
    const line = $(".failure", card);
    line.hidden = false;
    line.textContent = `${data.title}. ${data.detail}`;
    say(line.textContent);
  } else if (kind === "end") {
    $(".summary", card).textContent = data.summary || "";
    if (!$("ol", card).children.length && $(".failure", card).hidden) $(".summary", card).textContent = "No shot was found.";
    say("The video is described.");
  }
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}
