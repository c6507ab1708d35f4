// One search at a time, the newest wish only. While one is under way newer wishes replace each other; an answer to an
// old wish is dropped. A busy server is asked again when it said, not before.

export class Searcher {
  #wish = null; // not yet asked
  #current = null; // the newest wish, asked or not
  #timer = 0;
  #running = false;
  #notBefore = 0;

  constructor({ run, show, fail, waiting, busy }) {
    Object.assign(this, { run, show, fail, waiting, busy });
  }

  get running() {
    return this.#running;
  }

  get pending() {
    return this.#running || this.#wish !== null;
  }

  want(wish, delay = 0) {
    this.#wish = this.#current = wish;
    this.#plan(delay);
  }

  forget() {
    this.#wish = this.#current = null;
    clearTimeout(this.#timer);
    this.busy(false);
  }

  #plan(delay) {
    clearTimeout(this.#timer);
    const wait = Math.max(delay, this.#notBefore - performance.now());
    this.#timer = setTimeout(() => this.#ask(), Math.max(wait, 0));
  }

  async #ask() {
    if (this.#running || !this.#wish) return;
    const wish = this.#wish;
    this.#wish = null;
    this.#running = true;
    this.busy(true);
    try {
      const answer = await this.run(wish);
      if (wish === this.#current) this.show(wish, answer);
    } catch (error) {
      if (error.wait) {
        this.#notBefore = performance.now() + error.wait * 1000;
        if (wish === this.#current) {
          this.#wish = wish;
          this.waiting(error);
        }
      } else if (wish === this.#current) {
        this.fail(wish, error);
      }
    } finally {
      this.#running = false;
      this.busy(this.#wish !== null);
    }
    if (this.#wish) this.#plan(0);
  }
}
