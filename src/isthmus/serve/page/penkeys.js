// Drawing with the keyboard: arrows move a cross over the canvas, Space puts the pen down and lifts it.

import { SIDE } from "./easel.js";

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function penKeys(easel, frame, changed) {
  const cross = document.createElement("span");
  cross.className = "cross";
  cross.hidden = true;
  frame.append(cross);
  let [x, y] = [SIDE / 2, SIDE / 2];

  const place = () => {
    cross.style.left = `${(x / SIDE) * 100}%`;
    cross.style.top = `${(y / SIDE) * 100}%`;
    cross.classList.toggle("down", easel.drawing);
  };

  easel.canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = MOVES[event.key];
    if (move) {
      const step = event.shiftKey ? 4 : 16;
      x = Math.min(SIDE, Math.max(0, x + move[0] * step));
      y = Math.min(SIDE, Math.max(0, y + move[1] * step));
      if (easel.drawing) {
        easel.extend([x, y]);
        changed(true);
      }
    } else if (event.key === " ") {
      if (easel.drawing) easel.end();
      else if (easel.begin([x, y])) changed(true);
    } else if (event.key === "Escape" && easel.drawing) {
      easel.undo();
    } else {
      return;
    }
    event.preventDefault();
    cross.hidden = false;
    place();
  });
  easel.canvas.addEventListener("blur", () => {
    easel.end();
    cross.hidden = true;
  });
  easel.canvas.addEventListener("pointerdown", () => (cross.hidden = true));
}
