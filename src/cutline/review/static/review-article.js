// What is shown beside the alt text: the image in its context, alternatives, and the evidence.

import { STATES, clip, h } from "./review-parts.js";

const ORIGINS = { page: "from the page", glossary: "from the glossary" };

/** The image between the text around it on its page. */
export function clipping(use, filtered, onlyPage) {
  const about = use.context;
  const before = about.heading ? about.before.split(about.heading).at(-1).trim() : about.before;
  const after = about.after.startsWith(about.caption) ? about.after.slice(about.caption.length).trim() : about.after;
  const size = use.size.length ? `${use.size[0]} × ${use.size[1]} px` : "";
  const picture =
    use.picture === null
      ? h("div", { class: "absent" }, use.error || (about.kind === "svg" ? "inline drawing" : "no image to show"))
      : h("img", { class: "picture", src: `pictures/${use.picture}`, alt: `Image: ${use.name}` });
  const address = /^https?:\/\//.test(use.page);
  return h(
    "figure",
    { class: "clipping", "aria-label": "Context on the page" },
    h(
      "p",
      { class: "bar" },
      address
        ? h("a", { href: use.page, target: "_blank", rel: "noreferrer" }, about.page_title || use.page)
        : h("span", {}, about.page_title || use.page),
      h("button", { type: "button", class: "plain", data: { act: "page" }, title: use.page, onclick: onlyPage }, filtered ? "all pages" : "only this page"),
    ),
    h(
      "div",
      { class: "sheet" },
      about.heading ? h("p", { class: "heading" }, about.heading) : null,
      before ? h("p", { class: "near" }, before) : null,
      h(
        "div",
        { class: about.link || about.button ? "shot linked" : "shot" },
        picture,
        about.link || about.button
          ? h("p", { class: "leads" }, about.link ? `Leads to ${clip(about.link, 90)}` : "A button", about.link_text ? `, beside “${clip(about.link_text, 60)}”` : "")
          : null,
      ),
      about.caption ? h("figcaption", {}, about.caption) : null,
      after ? h("p", { class: "near" }, after) : null,
    ),
    size ? h("p", { class: "faint size" }, [size, about.language].filter(Boolean).join(" · ")) : null,
  );
}

/** The text, each word marked by its source. */
export function shown(use, text, edit) {
  if (text === "") return h("p", { id: "words", class: "big unsaid" }, "Decorative, ", h("code", {}, 'alt=""'));
  if (text === null) return h("p", { id: "words", class: "big unsaid" }, "It has no alt.");
  const marked = text === use.draft ? use.words : [];
  const origins = new Set(marked.map(([, origin]) => origin).filter((each) => ORIGINS[each]));
  const spoken = marked.length
    ? marked.flatMap(([word, origin]) => [h("span", { class: `from-${origin}`, title: ORIGINS[origin] }, word), " "])
    : [text];
  return h(
    "div",
    {},
    h("p", { id: "words", class: "big", onclick: edit }, ...spoken),
    origins.size
      ? h("p", { class: "legend" }, "Underlined: ", [...origins].map((each) => h("span", { class: `from-${each}` }, ORIGINS[each])).flatMap((each, i) => (i ? [", ", each] : [each])))
      : null,
  );
}

/** The long description of a chart, map or diagram, or the field to write it. */
export function longDescription(text, writing, edit, input) {
  const area = h("textarea", { id: "long", rows: 6, "aria-labelledby": "long-title", oninput: (event) => input(event.target.value) });
  area.value = text;
  return h(
    "section",
    { class: "long", "aria-labelledby": "long-title" },
    h(
      "h3",
      {},
      h("span", { id: "long-title" }, "Long description"),
      " ",
      writing ? null : h("button", { type: "button", class: "plain", data: { act: "long" }, "aria-keyshortcuts": "l", "aria-label": "Edit the long description", onclick: edit }, "Edit ", h("kbd", { "aria-hidden": "true" }, "l")),
    ),
    writing ? area : h("p", { class: text ? "" : "unsaid" }, text || "None. A chart, map or diagram needs one."),
  );
}

/** Alternatives, one key each. */
export function choices(use, take) {
  if (!use.candidates.length) return null;
  return h(
    "section",
    { class: "choices-of", "aria-labelledby": "or" },
    h("h3", { id: "or" }, use.abstained ? "Confidence too low" : "Alternatives"),
    h(
      "ol",
      {},
      use.candidates.map((each, i) =>
        h(
          "li",
          {},
          h(
            "button",
            { type: "button", data: { act: `take${i}` }, "aria-keyshortcuts": String(i + 1), onclick: () => take(i) },
            h("kbd", { "aria-hidden": "true" }, String(i + 1)),
            h("span", { class: "words" }, each.text),
            h("span", { class: "faint small" }, each.from),
          ),
        ),
      ),
    ),
  );
}

/** The evidence, and what is known of the image. */
export function because(use) {
  const about = use.context;
  const today = {
    missing: "no alt",
    empty: 'alt="" (intentional)',
    whitespace: "an alt with only spaces",
    present: `“${about.alt}”`,
  }[about.alt_state];
  const facts = [
    ["Why", use.purpose ? [h("span", { class: "badge" }, use.purpose), ` ${use.evidence}`, " ", h("code", { class: "faint" }, use.rule)] : null],
    ["Note", use.notes.length ? use.notes.flatMap((each, i) => (i ? [h("br"), each] : [each])) : null],
    ["In the page", [today, about.title ? `; title “${about.title}”` : "", about.name ? `; named “${about.name}”` : "", about.hidden ? "; hidden from screen readers" : ""]],
    ["Labels", use.labels.length ? [use.labels.join(", ")] : null],
    ["Reviewed", use.review ? [`${STATES[use.review.verdict][0]} by ${use.review.who || "somebody"}, ${new Date(use.review.when).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })}`] : null],
    ["By", use.model ? [use.model] : null],
    ["Markup", about.markup ? [h("code", {}, clip(about.markup, 400))] : null],
  ].filter(([, value]) => value);
  return h("dl", { class: "because" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
