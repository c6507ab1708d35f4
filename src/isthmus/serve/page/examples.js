// Sketches to start from, as lists of points like any drawing.

import { call } from "./api.js";
import { $, make } from "./dom.js";
import { paint, SIDE } from "./easel.js";

const SMALL = 72;

export async function showExamples(take) {
  const { width, sketches } = await call("page/examples.json");
  for (const { name, lines } of sketches) {
    const strokes = lines.map((flat) => ({
      points: Array.from({ length: flat.length / 2 }, (_, place) => [flat[2 * place], flat[2 * place + 1]]),
      width,
      erase: false,
    }));
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const canvas = make("canvas", { width: SMALL * scale, height: SMALL * scale, ariaHidden: "true" });
    const button = make("button", { type: "button", ariaLabel: `Sketch of a ${name}`, title: name }, canvas);
    button.addEventListener("click", () => take(strokes));
    $("examples").append(make("li", {}, button));
    const bold = strokes.map((line) => ({ ...line, width: width * 2 })); // so small, thin lines would fade
    $("examples-box").hidden = false;
    paint(canvas.getContext("2d"), bold, (SMALL * scale) / SIDE, getComputedStyle(canvas).color);
  }
}
