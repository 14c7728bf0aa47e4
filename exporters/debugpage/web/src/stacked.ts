// A plot of areas that are stacked on each other, over time, drawn by uPlot. A span of it can be selected, with the mouse or the keys.

import uPlot from 'uplot';
import { announce, h, replace } from './dom';
import { bytes, clock, coarse, day, digitsOf } from './format';
import { swatch } from './parts';
import { colour } from './theme';

export interface Area {
  key: string; // tells areas apart
  name: string;
  brief: string; // for places without room
  colour: string;
  values: number[];
}

// Selection is a span of time, in milliseconds since 1970.
export interface Selection {
  from: number;
  to: number;
}

export interface Marker {
  at: number;
  name: string;
}

export class Stacked {
  readonly root: HTMLElement;
  private plot: uPlot | null = null;
  private readonly waiting = h('p', { class: 'waiting' }, 'Two readings make a line: the second one comes soon.');
  private readonly tip = h('div', { class: 'tip', 'aria-hidden': 'true' });
  private areas: Area[] = [];
  private times: number[] = []; // seconds
  private total: number[] = [];
  private markers: Marker[] = [];
  private selection: Selection | null = null;
  private at: number | null = null; // the step of the cursor of the keys
  private anchor: number | null = null;
  private width = 0;
  private quietly = false;
  private dragging = false;

  constructor(
    private readonly height: number,
    label: string,
    private readonly onSelect?: (selection: Selection | null) => void,
  ) {
    const help = onSelect ? ' Arrow keys read it, with Shift they select a span, Escape ends the selection.' : ' Arrow keys read it.';
    this.root = h(
      'div',
      {
        class: 'plot',
        tabindex: '0',
        role: 'application',
        'aria-roledescription': 'plot',
        'aria-label': label + help,
        on: { keydown: (event: KeyboardEvent) => this.key(event), blur: () => this.leave() },
      },
      this.tip,
      this.waiting,
    );
    this.waiting.hidden = true;
    this.root.style.minHeight = `${height}px`; // for what is below not to move
    new ResizeObserver(() => this.resize()).observe(this.root);
  }

  // show draws areas, the first one lowest. Where the total is larger than their sum, a line shows it.
  show(times: number[], areas: Area[], total: number[], markers: Marker[] = []): void {
    const before = this.areas.map((area) => area.key + area.colour).join('\n');
    this.times = times;
    this.areas = areas;
    this.total = total;
    this.markers = markers;
    if (this.dragging) return; // what is being selected would be lost
    this.waiting.hidden = times.length !== 1;
    if (this.plot && before === areas.map((area) => area.key + area.colour).join('\n')) {
      this.plot.setData(this.data());
      this.drawSelection();
    } else {
      this.make();
    }
  }

  select(selection: Selection | null): void {
    this.selection = selection;
    this.drawSelection();
  }

  redraw(): void {
    if (this.plot) this.make();
  }

  // close has uPlot, which knows all plots, forget this one.
  close(): void {
    this.plot?.destroy();
    this.plot = null;
    this.times = [];
  }

  private data(): uPlot.AlignedData {
    const sums: number[][] = [];
    let below: number[] = new Array<number>(this.times.length).fill(0);
    for (const area of this.areas) {
      below = below.map((sum, i) => sum + (area.values[i] ?? 0));
      sums.push(below);
    }
    return [this.times, ...sums, this.total] as uPlot.AlignedData;
  }

  private make(): void {
    this.plot?.destroy();
    this.plot = null;
    this.width = this.root.clientWidth;
    if (this.width === 0 || this.times.length < 2) return;
    const axis = {
      stroke: colour('quiet'),
      font: '12px system-ui, sans-serif',
      grid: { stroke: colour('line'), width: 1 },
      ticks: { stroke: colour('line'), size: 5 },
    };
    const series: uPlot.Series[] = [{}];
    this.areas.forEach((area) => series.push({ label: area.name, stroke: colour(area.colour), width: 1, points: { show: false } }));
    series.push({ label: 'total', stroke: colour('text'), width: 1.5, points: { show: false } });
    const bands = this.areas.map((area, i): uPlot.Band => ({ series: [i + 1, i], fill: colour(area.colour) })).slice(1);
    const first = series[1];
    if (this.areas.length > 0 && first) first.fill = colour(this.areas[0]?.colour ?? 'other');
    this.plot = new uPlot(
      {
        width: this.width,
        height: this.height,
        series,
        bands,
        legend: { show: false },
        padding: [8, 36, 0, 0],
        cursor: { points: { show: false }, y: false, drag: { x: this.onSelect !== undefined, y: false, setScale: false } },
        scales: { x: { time: true }, y: { range: (_, __, most) => [0, ceiling(most)] } },
        axes: [
          { ...axis, size: 34, space: 90, values: (_, splits) => clocks(splits) },
          { ...axis, size: 74, space: 36, splits: (_, __, ___, most) => steps(most), values: (_, splits) => splits.map(coarse) },
        ],
        hooks: {
          setCursor: [() => this.read(this.plot?.cursor.idx ?? null)],
          setSelect: [() => this.selected()],
          draw: [(plot) => this.drawMarkers(plot)],
        },
      },
      this.data(),
      this.root,
    );
    this.plot.over.addEventListener('mousedown', ({ button }) => {
      if (button !== 0) return;
      this.dragging = true;
      window.addEventListener('mouseup', () => (this.dragging = false), { once: true });
    });
    this.drawSelection();
  }

  private resize(): void {
    const width = this.root.clientWidth;
    if (width === 0 || width === this.width) return;
    this.width = width;
    if (this.plot) {
      this.plot.setSize({ width, height: this.height });
      this.drawSelection();
    } else if (this.times.length > 0) {
      this.make();
    }
  }

  private drawMarkers(plot: uPlot): void {
    const { ctx, bbox } = plot;
    const ratio = window.devicePixelRatio || 1;
    for (const marker of this.markers) {
      const x = plot.valToPos(marker.at / 1000, 'x', true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colour('text');
      ctx.setLineDash([4 * ratio, 3 * ratio]);
      ctx.lineWidth = ratio;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.font = `${12 * ratio}px system-ui, sans-serif`;
      ctx.textAlign = x > bbox.left + bbox.width * 0.85 ? 'right' : 'left';
      ctx.fillText(marker.name, x + (ctx.textAlign === 'right' ? -4 : 4) * ratio, bbox.top + 12 * ratio);
      ctx.restore();
    }
  }

  private selected(): void {
    if (this.quietly || !this.plot) return;
    const { left, width } = this.plot.select;
    const selection = width < 3 ? null : { from: this.plot.posToVal(left, 'x') * 1000, to: this.plot.posToVal(left + width, 'x') * 1000 };
    this.selection = selection;
    this.onSelect?.(selection);
  }

  private drawSelection(): void {
    if (!this.plot) return;
    this.quietly = true;
    if (this.selection) {
      const from = Math.max(0, this.plot.valToPos(this.selection.from / 1000, 'x')),
        to = this.plot.valToPos(this.selection.to / 1000, 'x');
      this.plot.setSelect({ left: from, top: 0, width: Math.max(1, to - from), height: this.plot.over.clientHeight }, false);
    } else {
      this.plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    }
    this.quietly = false;
  }

  private key(event: KeyboardEvent): void {
    if (!this.plot || this.times.length === 0) return;
    const last = this.times.length - 1;
    const from = this.at ?? last;
    const far = Math.max(1, Math.round(last / 20));
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, PageUp: from - far, PageDown: from + far, Home: 0, End: last }[event.key];
    if (event.key === 'Escape' && (this.selection || this.at !== null)) {
      this.anchor = null;
      this.leave();
      if (this.onSelect && this.selection) {
        this.select(null);
        this.onSelect(null);
        announce('The selection has ended.');
      }
    } else if (to !== undefined && !event.ctrlKey && !event.metaKey && !event.altKey) {
      this.move(from, Math.max(0, Math.min(last, to)), event.shiftKey && this.onSelect !== undefined);
    } else {
      return;
    }
    event.preventDefault();
  }

  private move(from: number, to: number, selecting: boolean): void {
    this.at = to;
    const time = this.times[to] as number;
    if (selecting) {
      this.anchor ??= from;
      const ends = [this.times[this.anchor] as number, time].sort((a, b) => a - b) as [number, number];
      this.select({ from: ends[0] * 1000, to: ends[1] * 1000 });
      this.onSelect?.(this.selection);
    } else {
      this.anchor = null;
    }
    this.plot?.setCursor({ left: this.plot.valToPos(time, 'x'), top: 10 }, false);
    this.read(to);
    announce(
      `${clock(time * 1000, this.digits)}: ${bytes(this.total[to] ?? 0)}. ${this.largest(to)
        .slice(0, 3)
        .map((area) => `${area.brief} ${bytes(area.values[to] ?? 0)}`)
        .join(', ')}`,
    );
  }

  private leave(): void {
    this.at = null;
    this.plot?.setCursor({ left: -10, top: -10 }, false);
    this.read(null);
  }

  private get digits(): number {
    return digitsOf(Math.ceil(1000 * ((this.times[1] ?? 0) - (this.times[0] ?? 0))));
  }

  private largest(step: number): Area[] {
    return this.areas.filter((area) => (area.values[step] ?? 0) > 0).sort((a, b) => (b.values[step] ?? 0) - (a.values[step] ?? 0));
  }

  // read shows the values of a step beside it.
  private read(step: number | null | undefined): void {
    if (step === null || step === undefined || !this.plot) {
      this.tip.style.visibility = 'hidden';
      return;
    }
    const time = this.times[step] as number;
    const list = this.largest(step);
    const head = h('p', null, h('strong', null, clock(time * 1000, this.digits)), h('strong', null, bytes(this.total[step] ?? 0)));
    replace(
      this.tip,
      head,
      list
        .slice(0, 6)
        .map((area) => h('p', null, h('span', null, swatch(area.colour), area.brief), h('span', null, bytes(area.values[step] ?? 0)))),
    );
    const x = this.plot.valToPos(time, 'x') + this.plot.over.offsetLeft;
    const right = x > this.width / 2;
    this.tip.style.left = right ? 'auto' : `${x + 12}px`;
    this.tip.style.right = right ? `${this.width - x + 12}px` : 'auto';
    this.tip.style.top = '8px';
    this.tip.style.visibility = 'visible';
  }
}

// ceiling is the end of the axis for values up to most.
function ceiling(most: number): number {
  return most > 0 ? most * 1.06 : 1024;
}

// steps are round numbers of bytes on an axis: 1, 2, 4, ... 512 of a unit of 1024.
function steps(most: number): number[] {
  const step = 2 ** Math.max(0, Math.ceil(Math.log2(most / 6)));
  const list: number[] = [];
  for (let at = 0; at <= most; at += step) list.push(at);
  return list;
}

function clocks(seconds: number[]): string[] {
  const between = 1000 * ((seconds[1] ?? 0) - (seconds[0] ?? 0));
  if (between * seconds.length > 86_400_000) return seconds.map((at) => `${day(at * 1000).slice(5)} ${clock(at * 1000).slice(0, 5)}`);
  return seconds.map((at) => clock(at * 1000, seconds.length > 1 ? digitsOf(Math.ceil(between)) : 0));
}
