// Numbers of one thing at each step of a history, which are kept from the step on at which they begin.

export const maxSteps = 1200;

// Figures are bytes that are live, and that were allocated in all.
export interface Figures {
  live: number;
  allocated: number;
}

const none: Figures = { live: 0, allocated: 0 };

export class Series {
  first: Figures = none; // when the page was opened
  last: Figures = none;
  peak = 0; // live bytes
  private live = new Float64Array(0);
  private allocated = new Float64Array(0);

  constructor(private start: number) {}

  // at is what there was at a step; before its beginning there was nothing.
  at(step: number): Figures {
    const i = step - this.start;
    return i < 0 ? none : { live: this.live[i] ?? 0, allocated: this.allocated[i] ?? 0 };
  }

  // write fills the steps from the last of so many to this one, those in between with what a line between them says: a busy program has fewer
  // ticks. A step has the most live bytes of its ticks, and the latest sum of those allocated.
  write(step: number, steps: number): void {
    const { live, allocated } = this.last;
    this.peak = Math.max(this.peak, live);
    this.reserve(step);
    if (step < steps) {
      this.live[step - this.start] = Math.max(this.at(step).live, live);
      this.allocated[step - this.start] = allocated;
      return;
    }
    const from = Math.max(0, steps - 1),
      before = steps > 0 ? this.at(from) : this.last;
    for (let at = Math.max(steps, this.start); at <= step; at++) {
      const part = step > from ? (at - from) / (step - from) : 1;
      this.live[at - this.start] = Math.round(before.live + part * (live - before.live));
      this.allocated[at - this.start] = Math.round(before.allocated + part * (allocated - before.allocated));
    }
  }

  // add adds what another one has at each of so many steps.
  add(other: Series, steps: number): void {
    this.begin(other.start);
    this.reserve(steps - 1);
    for (let step = other.start; step < steps; step++) {
      const { live, allocated } = other.at(step),
        i = step - this.start;
      this.live[i] = (this.live[i] as number) + live;
      this.allocated[i] = (this.allocated[i] as number) + allocated;
      this.peak = Math.max(this.peak, this.live[i] as number);
    }
    this.first = sum(this.first, other.first);
    this.last = sum(this.last, other.last);
  }

  // halve makes one step of two, of so many.
  halve(steps: number): void {
    const start = this.start >> 1,
      end = Math.ceil(steps / 2);
    for (let step = start; step < end; step++) {
      const one = this.at(2 * step),
        other = this.at(Math.min(2 * step + 1, steps - 1));
      this.live[step - start] = Math.max(one.live, other.live);
      this.allocated[step - start] = other.allocated;
    }
    this.start = start;
  }

  // values are the live bytes of the steps from one to before another.
  values(from: number, to: number): number[] {
    const list = new Array<number>(Math.max(0, to - from)).fill(0);
    for (let step = Math.max(from, this.start); step < to; step++) list[step - from] = this.live[step - this.start] ?? 0;
    return list;
  }

  private reserve(step: number): void {
    const wanted = step - this.start + 1,
      { length } = this.live;
    if (wanted > length) this.move(0, Math.min(maxSteps - this.start, Math.max(wanted, 2 * length, 16)));
  }

  // begin has the numbers begin at a step that is earlier.
  private begin(step: number): void {
    if (step >= this.start) return;
    const by = this.start - step;
    this.start = step;
    this.move(by, this.live.length + by);
  }

  private move(to: number, length: number): void {
    const { live, allocated } = this;
    this.live = new Float64Array(length);
    this.allocated = new Float64Array(length);
    this.live.set(live, to);
    this.allocated.set(allocated, to);
  }
}

export function sum(a: Figures, b: Figures, sign = 1): Figures {
  return { live: a.live + sign * b.live, allocated: a.allocated + sign * b.allocated };
}
