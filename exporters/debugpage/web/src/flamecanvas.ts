// Draws a flame graph on a canvas and lets the mouse and the keys walk in it. Of the libraries that were measured, d3-flame-graph drew
// 3 frames a second of 1,000 sites, and flame-chart-js 29 (web/README.md).

import { announce, fitCanvas, h, perFrame } from './dom';
import { shortFunction } from './format';
import { depthOf, find, packageOf, pathOf, type Flame } from './flametree';
import { colour, tint } from './theme';

const rowHeight = 22;

export interface FlameOptions {
  label: string;
  describe(at: Flame): string; // the figures of a frame, in a few words
  onPoint(at: Flame | null): void; // the mouse or the keys are on a frame
  onZoom(at: Flame): void;
}

export class FlameCanvas {
  readonly root: HTMLElement;
  private readonly canvas = h('canvas', { 'aria-hidden': 'true' });
  private tree: Flame | null = null;
  private top: Flame | null = null; // that has the whole width
  private at: Flame | null = null; // of the keys
  private pointed: Flame | null = null; // of the mouse
  private matches: Set<Flame> | null = null;
  private difference = false;
  private width = 0;
  private rows: Flame[][] = [];
  private readonly soon = perFrame(() => this.draw());

  constructor(private readonly options: FlameOptions) {
    this.root = h(
      'div',
      {
        class: 'plot',
        tabindex: '0',
        role: 'application',
        'aria-roledescription': 'flame graph',
        'aria-label': `${options.label} Arrow keys walk: down to what a function calls, up to its caller, left and right to its neighbours. Enter zooms in, Escape out.`,
        on: {
          keydown: (event: KeyboardEvent) => this.key(event),
          focus: () => this.soon(),
          blur: () => this.soon(),
          mousemove: (event: MouseEvent) => this.point(this.hit(event)),
          mouseleave: () => this.point(null),
          click: (event: MouseEvent) => this.click(event),
        },
      },
      this.canvas,
    );
    new ResizeObserver(() => {
      if (this.root.clientWidth !== this.width) this.soon();
    }).observe(this.root);
  }

  show(tree: Flame, difference: boolean): void {
    const top = this.top && pathOf(this.top),
      at = this.at && pathOf(this.at);
    this.tree = tree;
    this.top = top ? find(tree, top) : tree;
    this.at = at ? find(tree, at) : null;
    this.pointed = null;
    this.difference = difference;
    this.soon();
  }

  zoom(path: string[]): void {
    if (!this.tree) return;
    this.top = find(this.tree, path);
    this.soon();
  }

  get zoomed(): Flame | null {
    return this.top === this.tree ? null : this.top;
  }

  highlight(matches: Set<Flame> | null): void {
    this.matches = matches;
    this.soon();
  }

  redraw(): void {
    this.soon();
  }

  private zoomTo(at: Flame): void {
    this.top = at;
    this.at = at;
    this.options.onZoom(at);
    this.soon();
  }

  // draw paints the frames above the zoomed one, which have the whole width, and those below it that have half a pixel.
  draw(): void {
    const { tree, top } = this;
    const width = (this.width = this.root.clientWidth);
    if (!tree || !top || width === 0) return;
    const height = (depthOf(top) + 1) * rowHeight;
    const context = fitCanvas(this.canvas, width, height);
    context.clearRect(0, 0, width, height);
    context.font = '12px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif';
    context.textBaseline = 'middle';
    this.rows = [];
    for (let up: Flame | null = top; up; up = up.parent) this.paint(context, up, 0, width);
    const scale = width / Math.max(top.value, 1);
    const waiting = [...top.children];
    for (let at = waiting.pop(); at; at = waiting.pop()) {
      const w = at.value * scale;
      if (w < 0.5) continue;
      this.paint(context, at, (at.start - top.start) * scale, w);
      waiting.push(...at.children);
    }
    this.mark(context, document.activeElement === this.root ? this.at : null, 3);
    this.mark(context, this.pointed, 2);
  }

  private paint(context: CanvasRenderingContext2D, at: Flame, x: number, width: number): void {
    (this.rows[at.depth] ??= []).push(at);
    const y = at.depth * rowHeight;
    context.fillStyle = this.fill(at);
    context.fillRect(x, y, Math.max(width - 1, 0.5), rowHeight - 1);
    if (width < 34) return;
    const room = width - 10;
    const label = at.parent ? shortFunction(at.fn) : 'all';
    const figure = `  ${this.options.describe(at)}`;
    context.fillStyle = colour('f-text');
    const wide = context.measureText(label).width;
    if (wide + context.measureText(figure).width <= room) context.fillText(label + figure, x + 5, y + rowHeight / 2);
    else context.fillText(wide <= room ? label : cut(context, label, room, wide), x + 5, y + rowHeight / 2);
  }

  private fill(at: Flame): string {
    if (this.matches && !this.matches.has(at)) return colour('f-dim');
    if (this.difference)
      return mix(colour('f-dim'), colour(at.net >= 0 ? 'grow' : 'shrink'), at.value === 0 ? 0 : 0.12 + 0.5 * Math.abs(at.net / at.value));
    return at.parent ? colour(tint(packageOf(at.fn))) : colour('f-dim');
  }

  private extent(at: Flame): [number, number] {
    const top = this.top as Flame;
    if (at.depth <= top.depth) return [0, this.width];
    const scale = this.width / Math.max(top.value, 1);
    return [(at.start - top.start) * scale, at.value * scale];
  }

  private mark(context: CanvasRenderingContext2D, at: Flame | null, line: number): void {
    if (!at) return;
    const [x, width] = this.extent(at);
    context.strokeStyle = colour('text');
    context.lineWidth = line;
    context.strokeRect(x + line / 2, at.depth * rowHeight + line / 2, Math.max(width - 1 - line, 1), rowHeight - 1 - line);
  }

  private hit(event: MouseEvent): Flame | null {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left,
      row = this.rows[Math.floor((event.clientY - box.top) / rowHeight)];
    return (
      row?.find((at) => {
        const [start, width] = this.extent(at);
        return x >= start && x < start + Math.max(width, 1);
      }) ?? null
    );
  }

  private point(at: Flame | null): void {
    if (at === this.pointed) return;
    this.pointed = at;
    this.canvas.style.cursor = at ? 'pointer' : 'default';
    this.options.onPoint(at ?? (document.activeElement === this.root ? this.at : null));
    this.soon();
  }

  private click(event: MouseEvent): void {
    const at = this.hit(event);
    if (at) this.zoomTo(at === this.top && at.parent ? at.parent : at);
  }

  private key(event: KeyboardEvent): void {
    if (!this.tree || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.at ?? this.top ?? this.tree;
    const family = at.parent?.children ?? [];
    const beside = (by: number) => family[family.indexOf(at) + by] ?? at;
    let to: Flame | null = null;
    switch (event.key) {
      case 'ArrowDown':
        to = this.at ? (at.children[0] ?? at) : at;
        break;
      case 'ArrowUp':
        to = at.parent ?? at;
        break;
      case 'ArrowLeft':
        to = beside(-1);
        break;
      case 'ArrowRight':
        to = beside(1);
        break;
      case 'Home':
        to = this.tree;
        break;
      case 'Enter':
      case ' ':
        this.zoomTo(at);
        break;
      case 'Escape':
        if (this.top === this.tree) return;
        this.zoomTo(this.tree);
        break;
      default:
        return;
    }
    event.preventDefault();
    if (to) this.walk(to);
    const now = this.at ?? this.tree;
    announce(`${now.fn || 'all'}, ${this.options.describe(now)}`);
  }

  // walk goes to a frame; one that is out of sight has its nearest caller zoomed in that shows it.
  private walk(to: Flame): void {
    this.at = to;
    const top = this.top as Flame;
    const shown =
      to.depth <= top.depth
        ? pathOf(top).slice(0, to.depth).join('\n') === pathOf(to).join('\n')
        : this.extent(to)[1] >= 3 && this.below(to, top);
    if (!shown && to.parent) {
      this.top = to.parent;
      this.options.onZoom(to.parent);
    }
    this.options.onPoint(to);
    this.soon();
  }

  private below(at: Flame, top: Flame): boolean {
    for (let up: Flame | null = at; up; up = up.parent) if (up === top) return true;
    return false;
  }
}

// cut leaves out the end of a text that is wider than its room.
function cut(context: CanvasRenderingContext2D, label: string, room: number, wide: number): string {
  let length = Math.floor((label.length * room) / wide);
  while (length > 1 && context.measureText(`${label.slice(0, length)}…`).width > room) length--;
  return length > 1 ? `${label.slice(0, length)}…` : '';
}

// mix is a colour between two of the form #rrggbb.
export function mix(from: string, to: string, part: number): string {
  const channel = (text: string, i: number) => Number.parseInt(text.slice(1 + 2 * i, 3 + 2 * i), 16);
  const list = [0, 1, 2].map((i) => Math.round(channel(from, i) + (channel(to, i) - channel(from, i)) * part));
  return `rgb(${list.join(' ')})`;
}
