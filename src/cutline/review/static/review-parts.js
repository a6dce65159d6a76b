// Parts of the review page: elements, announcements, and requests that are retried.

export const STATES = {
  asked: ["needs text", "warn"],
  drafted: ["suggested", ""],
  found: ["not drafted yet", ""],
  kept: ["kept as it is", ""],
  approved: ["approved", "good"],
  edited: ["edited", "good"],
  decorative: ["decorative", "good"],
  skipped: ["skipped", "warn"],
};

export const $ = (id) => document.getElementById(id);

export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((each) => each !== null && each !== undefined));
  return element;
}

export const number = (value) => value.toLocaleString("en");
export const several = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
export const percent = (share) => `${Math.floor(share * 100 + 1e-9)} %`;
export const clip = (text, most) => (text.length > most ? `${text.slice(0, most).trimEnd()}…` : text);

let fading;
export function say(text) {
  const live = $("live");
  live.textContent = live.textContent === text ? `${text}\u00a0` : text;
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => ($("toast").hidden = true), 4000);
}

export function ask(title, text) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  const dialog = $("ask");
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// Asking the server

export const server = { busy: false };

export async function get(path, parameters) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters || {})}`);
  if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
  return answer.json();
}

export function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Send until it is answered; what the person did is never dropped. Gives status and answer. */
export async function save(path, body) {
  server.busy = true;
  document.body.setAttribute("aria-busy", "true");
  for (let wait = 1; ; wait = Math.min(wait * 2, 15)) {
    let why = "the server does not answer. Is cutline site review still running?";
    try {
      const answer = await post(path, body);
      const told = await answer.json();
      if (answer.status < 500) {
        $("trouble").hidden = true;
        server.busy = false;
        document.body.removeAttribute("aria-busy");
        return [answer.status, told];
      }
      why = told.detail;
    } catch {
      // no answer, or half of one: ask again; what was written already is not written twice
    }
    await pause(wait, why);
  }
}

function pause(seconds, why) {
  return new Promise((resolve) => {
    const again = h("button", { type: "button", onclick: resolve }, "Try now");
    $("trouble").replaceChildren(`Not saved yet: ${why} Trying again in ${seconds} s. `, again);
    $("trouble").hidden = false;
    setTimeout(resolve, seconds * 1000);
  });
}
