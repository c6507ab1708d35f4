// Small helpers for building the page. Text from the server only ever becomes text, never markup.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export function number(value) {
  return value.toLocaleString(undefined, { maximumFractionDigits: 3 });
}

export function plural(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

export function words(value, kind) {
  if (value === null || value === undefined) return "";
  if (kind === "flag" || typeof value === "boolean") return value ? "yes" : "no";
  if (kind === "number" || typeof value === "number") return number(Number(value));
  if (kind === "time") {
    const time = new Date(value);
    if (Number.isNaN(time.getTime())) return String(value);
    const zone = { timeZone: "UTC" }; // as stored, and as the filters compare
    return time.getTime() % 86_400_000 === 0 ? time.toLocaleDateString(undefined, zone) : time.toLocaleString(undefined, zone);
  }
  return String(value);
}
