// The hits as a grid: one stop for the Tab key, arrow keys inside.

import { mark, showPicture } from "./api.js";
import { $, icon, make } from "./dom.js";

export const titleOf = (hit) => hit.label || hit.id;

export class Hits {
  list = []; // what is shown, best first
  #cells = [];
  #marks = new Map();

  constructor({ open, alike, fail }) {
    Object.assign(this, { open, alike, fail });
    this.grid = $("hits");
    this.feedback = false;
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.grid.addEventListener("focusin", (event) => {
      const place = this.#cells.findIndex((cell) => cell.contains(event.target));
      if (place >= 0) this.#current(place);
    });
  }

  clear() {
    this.list = [];
    this.#cells = [];
    this.#marks.clear();
    this.grid.replaceChildren();
  }

  show(search, hits, fresh) {
    const hadFocus = this.grid.contains(document.activeElement);
    if (fresh) this.clear();
    const known = new Set(this.list.map((hit) => hit.id)); // the catalog may have changed between two pages
    const first = this.list.length;
    for (const hit of hits) {
      if (known.has(hit.id)) continue;
      this.list.push({ ...hit, search });
      this.#cells.push(this.#cell(this.list.at(-1), this.list.length - 1));
    }
    this.grid.append(...this.#cells.slice(first));
    if (fresh && this.list.length) this.#current(0);
    if (fresh && hadFocus && this.list.length) this.focus(0);
    return this.list.length - first;
  }

  focus(place) {
    this.#cells[place]?.querySelector(".hit").focus();
  }

  #cell(hit, place) {
    const title = titleOf(hit);
    const img = make("img", { alt: "", loading: "lazy", decoding: "async", width: 160, height: 160 });
    const frame = make("span", { className: "frame" }, img);
    img.addEventListener("error", () => {
      img.remove();
      frame.append(make("span", { className: "soft" }, "no picture"));
    });
    showPicture(img, hit.thumbnail);
    const score = hit.score.toFixed(2);
    const below = hit.match === false ? `, below the threshold` : "";
    const main = make(
      "button",
      { type: "button", className: "hit", tabIndex: -1, ariaLabel: `${place + 1}: ${title}, score ${score}${below}` },
      frame,
      make("span", { className: "line" }, make("span", { className: "title" }, title), make("span", { className: "score" }, score)),
    );
    if (below) main.append(make("span", { className: "under" }, "below the threshold"));
    main.addEventListener("click", () => this.open(place));
    const row = make("div", { className: "row" }, this.#button("alike", `More like ${title}`, () => this.alike(hit)));
    if (this.feedback) row.append(...this.#marking(hit, title));
    return make("li", { className: below ? "below" : "" }, main, row);
  }

  #button(name, label, act) {
    const button = make("button", { type: "button", className: `icon small ${name}`, tabIndex: -1, ariaLabel: label, title: label }, icon(name));
    button.addEventListener("click", act);
    return button;
  }

  #marking(hit, title) {
    const buttons = [true, false].map((right) => {
      const word = right ? "right" : "wrong";
      const button = this.#button(word, `Mark ${title} as ${word}`, () => choose(right));
      button.setAttribute("aria-pressed", "false");
      return button;
    });
    const show = (right) => {
      buttons[0].setAttribute("aria-pressed", String(right === true));
      buttons[1].setAttribute("aria-pressed", String(right === false));
    };
    const choose = async (right) => {
      const before = this.#marks.get(hit.id);
      this.#marks.set(hit.id, right);
      show(right);
      try {
        await mark(hit.search, hit.id, right);
      } catch (error) {
        if (this.#marks.get(hit.id) !== right) return; // marked otherwise meanwhile
        this.#marks.set(hit.id, before);
        show(before);
        this.fail(error, () => choose(right));
      }
    };
    return buttons;
  }

  #current(place) {
    for (const [at, cell] of this.#cells.entries()) {
      for (const button of cell.querySelectorAll("button")) button.tabIndex = at === place ? 0 : -1;
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const place = this.#cells.findIndex((cell) => cell.contains(document.activeElement));
    if (place < 0) return;
    const top = this.#cells[0].offsetTop;
    const below = this.#cells.findIndex((cell) => cell.offsetTop > top);
    const columns = below < 0 ? this.#cells.length : below;
    const last = this.#cells.length - 1;
    const moves = {
      ArrowLeft: place - 1, ArrowRight: place + 1, ArrowUp: place - columns, ArrowDown: place + columns, Home: 0, End: last,
    };
    const next = moves[event.key];
    if (next === undefined) return;
    event.preventDefault();
    if (next >= 0 && next <= last) this.focus(next);
    else if (event.key === "ArrowDown") this.focus(last);
  }
}
