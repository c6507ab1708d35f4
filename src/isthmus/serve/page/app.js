// The page: what is asked, and what is shown of it.

import * as api from "./api.js";
import { Detail } from "./detail.js";
import { $, make, number, plural } from "./dom.js";
import { Easel } from "./easel.js";
import { showExamples } from "./examples.js";
import { Filters } from "./filters.js";
import { Hits, titleOf } from "./hits.js";
import { fit, takeImages } from "./images.js";
import { penKeys } from "./penkeys.js";
import { Searcher } from "./searcher.js";

const PAGE = 24;
const PAUSE = 250; // after the last change of a drawing
const WHILE = 500; // between searches in the middle of a stroke

let catalog = null;
let filters = null;
let source = { kind: "drawing" }; // or { kind: "image", file, url } or { kind: "item", hit }
let domain = null; // where the reader corrected the choice
let lastLive = 0;
let shown = null; // the wish that the hits answer

const easel = new Easel($("canvas"), drawn);
const hits = new Hits({ open: (place) => detail.open(place), alike: (hit) => ask({ kind: "item", hit }), fail: trouble });
const detail = new Detail(hits, (hit) => ask({ kind: "item", hit }));
const searcher = new Searcher({ run, show, fail, waiting, busy });

function fail(wish, error) {
  if (wish.source.kind === "image" && [400, 413, 415].includes(error.status)) {
    hits.clear(); // they answer another question, and must not stand beneath a file that was refused
    $("more").hidden = $("domains").hidden = true;
    $("status").textContent = "";
    $("taken-text").textContent = "This file can't be searched with.";
  }
  trouble(error, () => again(wish));
}

const again = (wish) => (hush(), searcher.want(wish));

// --- asking -----------------------------------------------------------------------------------------------------

async function run({ source, options }) {
  if (source.kind === "image") return api.searchImage(await fit(source.file, catalog.limits), options);
  const what = source.kind === "item" ? { id: source.hit.id } : { strokes: source.strokes };
  return api.searchFor({ ...what, ...options });
}

function wish() {
  const k = Math.min(PAGE, catalog.limits.k);
  const options = { k, offset: 0, domain, where: filters.where };
  return { source: source.kind === "drawing" ? { kind: "drawing", strokes: easel.strokes } : source, options };
}

function search(delay = 0) {
  if (!catalog) return;
  hush();
  if (source.kind === "drawing" && easel.blank) {
    searcher.forget();
    hits.clear();
    $("empty").hidden = false;
    $("no-match").hidden = true;
    $("more").hidden = true;
    $("status").textContent = "";
    return;
  }
  $("empty").hidden = true;
  searcher.want(wish(), delay);
}

function drawn(live) {
  $("undo").disabled = !easel.canUndo && !easel.drawing;
  $("redo").disabled = !easel.canRedo;
  $("clear").disabled = easel.lines.length === 0;
  $("hint").hidden = easel.lines.length > 0 || easel.drawing;
  const count = easel.lines.length;
  if (!live) $("canvas").setAttribute("aria-label", count ? `Your drawing, ${plural(count, "line")}` : "Empty canvas");
  if (source.kind !== "drawing") return;
  if (!live) return search(PAUSE);
  // While one is under way its answer is worth more than the next question.
  if (searcher.running || performance.now() - lastLive < WHILE) return;
  lastLive = performance.now();
  search();
}

function ask(next) {
  if (source.url) URL.revokeObjectURL(source.url);
  source = next;
  domain = null;
  detail.close();
  const other = source.kind !== "drawing";
  $("easel").classList.toggle("other", other);
  $("canvas").hidden = $("tools").hidden = other;
  $("shown").hidden = $("taken").hidden = !other;
  $("hint").hidden = other || easel.lines.length > 0;
  $("domains").hidden = source.kind !== "image";
  if (source.kind === "image") {
    $("shown").alt = "The image that you gave";
    $("shown").src = source.url;
    $("taken-text").textContent = "Searching with your image.";
  } else if (source.kind === "item") {
    const title = titleOf(source.hit);
    $("shown").alt = title;
    api.showPicture($("shown"), source.hit.image);
    $("taken-text").textContent = `Searching for what is like ${title}.`;
  }
  search();
  if (other) $("results").scrollIntoView({ block: "nearest" });
}

// --- showing ----------------------------------------------------------------------------------------------------

function show(wish, answer) {
  const { source, options } = wish;
  shown = wish;
  hush();
  const fresh = options.offset === 0;
  const focusMore = document.activeElement === $("more");
  const before = hits.list.length;
  hits.show(answer.search, answer.hits, fresh);
  const reached = options.offset + options.k;
  $("empty").hidden = true;
  if (fresh) $("no-match").hidden = answer.no_match !== true || answer.hits.length === 0;
  $("more").hidden = !answer.more || reached > catalog.limits.offset || answer.hits.length === 0;
  $("more").dataset.offset = reached;
  if (!fresh && focusMore) hits.focus(before);
  const count = hits.list.length;
  if (count === 0) $("status").textContent = filters.where ? "No results. Loosen a filter." : "No results.";
  else $("status").textContent = `${plural(count, "result")} shown, best: ${titleOf(hits.list[0])}, ${hits.list[0].score.toFixed(2)}.`;
  if (source.kind === "image") sayDomain(answer);
}

function sayDomain({ domain: used, chosen }) {
  const share = chosen.probability === null ? "" : ` (${Math.round(chosen.probability * 100)}% sure)`;
  let text = `Searched as “${used}”.`;
  if (chosen.by === "default") text += " If it is something else, say so:";
  if (chosen.by === "classifier" && chosen.sure) text = `Looks like “${used}”${share}.`;
  else if (chosen.by === "classifier") text = `Perhaps “${used}”, but hard to tell${share}. Please check:`;
  $("taken-text").textContent = text;
  $("taken-text").classList.toggle("unsure", chosen.by === "classifier" && !chosen.sure);
  for (const input of $("domains").querySelectorAll("input")) input.checked = input.value === used;
}

function busy(on) {
  $("results").setAttribute("aria-busy", String(on));
  $("more").disabled = on;
}

function hush() {
  $("notice").hidden = true;
  $("notice").replaceChildren();
}

function trouble(error, retry) {
  if (error.status === 401) {
    $("token-form").hidden = false;
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      api.useToken($("token").value.trim());
      $("token-form").hidden = true;
      hush();
      retry();
    };
  }
  const asks = error.status === 401 ? "The catalog is not open to everyone; a token opens it." : error.message;
  const parts = [make("p", {}, asks)];
  if (retry && ![400, 401, 413, 415].includes(error.status)) {
    const button = make("button", { type: "button" }, "Try again");
    button.addEventListener("click", () => {
      hush();
      retry();
    });
    parts.push(button);
  }
  $("notice").replaceChildren(...parts);
  $("notice").hidden = false;
}

function waiting({ wait }) {
  $("notice").replaceChildren(make("p", {}, `The server is busy; searching again in ${plural(Math.ceil(wait), "second")}.`));
  $("notice").hidden = false;
}

// --- the controls -----------------------------------------------------------------------------------------------

function tool(erase) {
  easel.erase = erase;
  $("pen").setAttribute("aria-pressed", String(!erase));
  $("eraser").setAttribute("aria-pressed", String(erase));
  $("easel").classList.toggle("erasing", erase);
}

$("pen").addEventListener("click", () => tool(false));
$("eraser").addEventListener("click", () => tool(true));
$("width").addEventListener("input", (event) => (easel.width = Number(event.target.value)));
$("undo").addEventListener("click", () => easel.undo());
$("redo").addEventListener("click", () => easel.redo());
$("clear").addEventListener("click", () => easel.clear());
$("back").addEventListener("click", () => {
  ask({ kind: "drawing" });
  $("canvas").focus();
});
$("more").addEventListener("click", (event) => {
  if (searcher.pending) return; // what comes will have other hits
  hush();
  searcher.want({ ...shown, options: { ...shown.options, offset: Number(event.target.dataset.offset) } });
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input:not([type=range], [type=checkbox], [type=radio])");
  if (typing || $("detail").open || source.kind !== "drawing" || !(event.ctrlKey || event.metaKey)) return;
  const key = event.key.toLowerCase();
  if (key === "z" && !event.shiftKey) easel.undo();
  else if (key === "y" || (key === "z" && event.shiftKey)) easel.redo();
  else return;
  event.preventDefault();
});
$("shown").addEventListener("error", () => ($("shown").hidden = true)); // a file of another sort has no picture
takeImages((file) => ask({ kind: "image", file, url: URL.createObjectURL(file) }), (sentence) => trouble(new Error(sentence)));
penKeys(easel, $("easel"), drawn);
showExamples((lines) => {
  if (source.kind !== "drawing") ask({ kind: "drawing" });
  easel.set(lines);
}).catch(() => {}); // the page works without them

async function start() {
  try {
    catalog = await api.catalog();
  } catch (error) {
    if (error.wait) setTimeout(start, error.wait * 1000);
    return trouble(error, start);
  }
  $("about").textContent = plural(catalog.items, "item");
  detail.kinds = Object.fromEntries(catalog.columns.map(({ name, kind }) => [name, kind]));
  hits.feedback = catalog.feedback;
  filters = new Filters(catalog.columns, () => search(PAUSE));
  const names = [...new Set(catalog.domains)];
  for (const name of names.length > 1 ? names : []) {
    const input = make("input", { type: "radio", name: "domain", value: name });
    input.addEventListener("change", () => {
      domain = name;
      search();
    });
    $("domains").append(make("label", {}, input, make("span", {}, name)));
  }
  drawn(false);
}

start();
