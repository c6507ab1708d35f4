// Filters made from the catalog's columns, and the condition that they say together.

import { $, make, number, plural, words } from "./dom.js";

const FIRST = 12;

const isNumber = (text) => text.trim() !== "" && Number.isFinite(Number(text));

// A column offers something where its items differ.
function useful(column) {
  if (column.values) return column.values.length > 1;
  if (column.kind === "number" || column.kind === "time") return column.min !== null && column.min !== column.max;
  return column.kind === "text";
}

function nextDay(day) {
  const time = new Date(`${day}T00:00:00Z`);
  time.setUTCDate(time.getUTCDate() + 1);
  return time.toISOString().slice(0, 10);
}

function choices(column) {
  const list = make("div", { className: column.values.length > 5 ? "choices" : "choices short" });
  const boxes = column.values.map(({ value, count }, position) => {
    const box = make("input", { type: "checkbox" });
    const name = words(value, column.kind) || "(empty)";
    const label = make("label", {}, box, make("span", {}, name), make("small", { className: "soft" }, number(count)));
    label.hidden = position >= FIRST;
    list.append(label);
    return { box, value, name };
  });
  if (boxes.length > FIRST) {
    const all = make("button", { type: "button", className: "plain" }, `Show all ${boxes.length}`);
    all.addEventListener("click", () => {
      const hidden = [...list.querySelectorAll("label[hidden]")];
      for (const label of hidden) label.hidden = false;
      all.remove();
      hidden[0].querySelector("input").focus();
    });
    list.append(all);
  }
  const chosen = () => boxes.filter(({ box }) => box.checked);
  return {
    nodes: [list],
    condition: () => (chosen().length ? { column: column.name, in: chosen().map(({ value }) => value) } : null),
    summary: () => (chosen().length > 2 ? String(chosen().length) : chosen().map(({ name }) => name).join(", ")),
    clear: () => boxes.forEach(({ box }) => (box.checked = false)),
  };
}

function range(column) {
  const time = column.kind === "time";
  const field = (name, bound) => {
    const hint = time || bound === undefined ? "" : String(bound);
    const options = time ? { type: "date" } : { type: "text", inputMode: "decimal", placeholder: hint };
    const input = make("input", options);
    return [input, make("label", { className: "bound" }, name, input)];
  };
  const [low, lowLabel] = field(time ? "from" : "at least", column.min);
  const [high, highLabel] = field(time ? "to" : "at most", column.max);
  const given = (input) => {
    const valid = time ? input.value !== "" : isNumber(input.value);
    if (!time) input.setAttribute("aria-invalid", String(input.value.trim() !== "" && !valid));
    return valid;
  };
  const part = (input, is, value) => (given(input) ? [{ column: column.name, is, value: value(input.value) }] : []);
  return {
    nodes: [make("div", { className: "range" }, lowLabel, highLabel)],
    condition: () => {
      const parts = time
        ? [...part(low, ">=", (day) => day), ...part(high, "<", nextDay)]
        : [...part(low, ">=", Number), ...part(high, "<=", Number)];
      return parts.length > 1 ? { all: parts } : (parts[0] ?? null);
    },
    summary: () => {
      const [from, to] = [low, high].map((input) => (given(input) ? words(time ? input.value : Number(input.value), column.kind) : ""));
      return from && to ? `${from} – ${to}` : from ? `from ${from}` : to ? `to ${to}` : "";
    },
    clear: () => (low.value = high.value = ""),
  };
}

function contains(column) {
  const input = make("input", { type: "search", maxLength: 200 });
  const text = () => input.value.trim();
  const pattern = () => `%${text().replace(/[\\%_]/g, "\\$&")}%`;
  return {
    nodes: [make("div", { className: "range" }, make("label", { className: "bound" }, "contains", input))],
    condition: () => (text() ? { column: column.name, like: pattern(), ignore_case: true } : null),
    summary: () => text(),
    clear: () => (input.value = ""),
  };
}

export class Filters {
  #parts = [];

  constructor(columns, changed) {
    const form = $("filters");
    this.form = form;
    this.pills = make("div", { className: "pills" });
    form.replaceChildren(this.pills);
    for (const column of columns.filter(useful)) this.#add(column);
    this.reset = make("button", { type: "button", className: "plain", hidden: true }, "Clear filters");
    this.pills.append(this.reset);
    form.hidden = this.#parts.length === 0;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      this.#say();
      changed();
    });
    this.reset.addEventListener("click", () => {
      for (const part of this.#parts) part.clear();
      this.#say();
      this.#parts[0].fold.querySelector("summary").focus();
      changed();
    });
    form.addEventListener("keydown", (event) => {
      const open = event.key === "Escape" && form.querySelector("details[open]");
      if (!open) return;
      open.open = false;
      open.querySelector("summary").focus();
      event.stopPropagation();
    });
    document.addEventListener("pointerdown", (event) => {
      for (const open of form.querySelectorAll("details[open]")) {
        if (!open.contains(event.target)) open.open = false;
      }
    });
  }

  // All columns must hold; of one column's values any.
  get where() {
    const parts = this.#parts.map((part) => part.condition()).filter(Boolean);
    return parts.length ? { all: parts } : null;
  }

  #add(column) {
    const part = column.values ? choices(column) : column.kind === "text" ? contains(column) : range(column);
    const title = make("summary", {}, column.name);
    const panel = make("fieldset", { className: "panel" }, make("legend", { className: "unseen" }, column.name), ...part.nodes);
    const fold = make("details", { name: "filter" }, title, panel);
    fold.addEventListener("toggle", () => this.#inside(panel));
    this.pills.append(fold);
    this.#parts.push({ ...part, column, title, fold });
  }

  // A panel hangs under its pill, moved left where it would leave the page.
  #inside(panel) {
    panel.style.left = "0";
    const over = panel.getBoundingClientRect().right - this.form.getBoundingClientRect().right;
    if (over > 0 && getComputedStyle(panel.parentElement).position === "relative") panel.style.left = `${-over}px`;
  }

  #say() {
    let active = 0;
    for (const { column, title, summary, fold, condition } of this.#parts) {
      const on = condition() !== null;
      active += on;
      fold.classList.toggle("on", on);
      title.textContent = on ? `${column.name}: ${summary()}` : column.name;
    }
    this.reset.hidden = active === 0;
    this.reset.setAttribute("aria-label", `Clear ${plural(active, "filter")}`);
  }
}
