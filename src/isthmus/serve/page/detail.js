// One hit in full: its picture, what is known of it, and the way to its like.

import { showPicture } from "./api.js";
import { $, make, words } from "./dom.js";
import { titleOf } from "./hits.js";

export class Detail {
  #place = 0;
  #hit = null; // the list may have been searched anew behind the dialog

  constructor(hits, alike) {
    Object.assign(this, { hits, alike, kinds: {} });
    this.dialog = $("detail");
    this.picture = $("detail-picture");
    this.picture.addEventListener("error", () => this.#gone(true));
    $("detail-close").addEventListener("click", () => this.dialog.close());
    $("detail-before").addEventListener("click", () => this.#go(-1));
    $("detail-after").addEventListener("click", () => this.#go(1));
    $("detail-alike").addEventListener("click", () => {
      this.dialog.close();
      this.alike(this.#hit);
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside the box
    });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#go(-1);
      if (event.key === "ArrowRight") this.#go(1);
    });
    this.dialog.addEventListener("close", () => this.hits.focus(this.#place));
  }

  open(place) {
    this.#show(place);
    if (!this.dialog.open) this.dialog.showModal();
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  #go(step) {
    const next = this.#place + step;
    if (next >= 0 && next < this.hits.list.length && this.hits.list.includes(this.#hit)) this.#show(next);
  }

  #show(place) {
    const hit = this.hits.list[place];
    this.#place = place;
    this.#hit = hit;
    const title = titleOf(hit);
    this.#gone(false);
    this.picture.alt = title;
    this.picture.removeAttribute("src");
    showPicture(this.picture, hit.image);
    $("detail-title").textContent = title;
    const share = hit.probability >= 0.01 ? `${Math.round(hit.probability * 100)} %` : "below 1 %";
    const word = hit.match ? "above the threshold" : "below the threshold";
    const match = typeof hit.match === "boolean" ? [["probability of a match", `${share}, ${word}`]] : [];
    const facts = [["score", hit.score.toFixed(3)], ...match, ["domain", hit.domain], ["id", hit.id]];
    const known = Object.entries(hit.metadata ?? {}).map(([name, value]) => [name, words(value, this.kinds[name])]);
    $("detail-facts").replaceChildren(
      ...[...known, ...facts].map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    );
    $("detail-before").disabled = place === 0;
    $("detail-after").disabled = place === this.hits.list.length - 1;
  }

  #gone(gone) {
    this.picture.hidden = gone;
    $("detail-gone").hidden = !gone;
  }
}
