// The canvas: lines as lists of points in a square of SIDE pixels, whatever its size on the screen.

export const SIDE = 512;
const MOST_LINES = 2000;
const MOST_POINTS = 50_000;
const NEAR = 1.5;

export function paint(context, lines, scale, ink) {
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, SIDE, SIDE);
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = ink;
  for (const line of lines) {
    context.globalCompositeOperation = line.erase ? "destination-out" : "source-over";
    context.lineWidth = line.width;
    context.beginPath();
    context.moveTo(...line.points[0]);
    for (const point of line.points) context.lineTo(...point);
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
}

export class Easel {
  lines = [];
  erase = false;
  width = 5;
  #past = [];
  #future = [];
  #line = null;
  #pointer = null;
  #frame = 0;

  // `changed(live)` is told of each change; live: in the middle of a stroke.
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#cancel(event));
    canvas.addEventListener("contextmenu", (event) => this.#line && event.preventDefault());
    new ResizeObserver(() => this.#resize()).observe(canvas);
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  get drawing() {
    return this.#line !== null;
  }

  get strokes() {
    const lines = this.#all().map(({ points, width, erase }) => ({ points, width, erase }));
    return { width: SIDE, height: SIDE, lines };
  }

  // Whether any ink is left to be seen: lines that were all erased are no query.
  get blank() {
    if (!this.#all().some((line) => !line.erase)) return true;
    this.repaint();
    const { width, height } = this.canvas;
    const pixels = new Uint32Array(this.context.getImageData(0, 0, width, height).data.buffer);
    return !pixels.some((pixel) => pixel !== 0);
  }

  set(lines) {
    this.#past.push(this.lines);
    this.#future = [];
    this.lines = lines;
    this.#later();
    this.changed(false);
  }

  undo() {
    if (this.#line) return this.#drop();
    this.#travel(this.#past, this.#future);
  }

  redo() {
    if (!this.#line) this.#travel(this.#future, this.#past);
  }

  clear() {
    if (this.lines.length) this.set([]);
  }

  // A stroke from somewhere else than a pointer: begin, go on, end.
  begin(point, erase = this.erase) {
    const points = this.#all().reduce((sum, line) => sum + line.points.length, 0);
    if (this.lines.length >= MOST_LINES || points >= MOST_POINTS) return false;
    this.left = MOST_POINTS - points;
    this.#line = { points: [point], width: erase ? this.width * 4 : this.width, erase };
    this.#later();
    return true;
  }

  extend(point) {
    const points = this.#line?.points;
    if (!points || points.length >= this.left) return;
    const last = points[points.length - 1];
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) < NEAR) return;
    points.push(point);
    this.#later();
  }

  end() {
    if (!this.#line) return;
    const line = this.#line;
    this.#line = null;
    this.set([...this.lines, line]);
  }

  repaint() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const ink = getComputedStyle(this.canvas).color;
    paint(this.context, this.#all(), this.canvas.width / SIDE, ink);
  }

  #all() {
    return this.#line ? [...this.lines, this.#line] : this.lines;
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => this.repaint());
  }

  #travel(from, to) {
    if (!from.length) return;
    to.push(this.lines);
    this.lines = from.pop();
    this.#later();
    this.changed(false);
  }

  #drop() {
    this.#line = null;
    this.#pointer = null;
    this.#later();
    this.changed(false);
  }

  #resize() {
    const side = Math.max(1, Math.round(this.canvas.clientWidth * (window.devicePixelRatio || 1)));
    if (this.canvas.clientWidth === 0 || this.canvas.width === side) return;
    this.canvas.width = this.canvas.height = side;
    this.repaint();
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    const at = (value) => Math.round(value * 10) / 10;
    return [at(((event.clientX - box.left) / box.width) * SIDE), at(((event.clientY - box.top) / box.height) * SIDE)];
  }

  #down(event) {
    const flipped = event.pointerType === "pen" && (event.buttons & 32) !== 0; // the pen's other end
    if (this.#pointer !== null || (event.button !== 0 && !flipped)) return; // a second finger or the palm
    this.end();
    if (!this.begin(this.#place(event), this.erase || flipped)) return;
    this.#pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.changed(true);
  }

  #move(event) {
    if (event.pointerId !== this.#pointer) return;
    const parts = event.getCoalescedEvents?.() ?? [];
    for (const part of parts.length ? parts : [event]) this.extend(this.#place(part));
    this.changed(true);
  }

  #up(event) {
    if (event.pointerId !== this.#pointer) return;
    this.extend(this.#place(event));
    this.#pointer = null;
    this.end();
  }

  #cancel(event) {
    if (event.pointerId === this.#pointer) this.#drop();
  }
}
