// Draws the map of memory: each span as a tile of cells, each cell one block. Only what is in sight is drawn.

import { fitCanvas, h, perFrame } from './dom';
import { bytes, plural } from './format';
import { addressOf, cellNoun, Clean, Free, spanNoun, type Cell, type Group, type MapModel } from './mapmodel';
import { colour } from './theme';

interface Tile {
  group: Group;
  span: number;
  cells: number;
  columns: number;
  x: number;
  y: number;
  width: number;
  height: number;
}
interface Heading {
  group: Group;
  y: number;
}

const headHeight = 34,
  gap = 5,
  stripHeight = 256;

export interface MapOptions {
  fill(group: Group, row: number): string; // the colour of a live block
  free(): string; // and of one that is free
  describe(cell: Cell): string;
  onSelect(cell: Cell): void;
}

export class MapCanvas {
  readonly root: HTMLElement;
  private readonly canvas = h('canvas', { 'aria-hidden': 'true' });
  private readonly sizer = h('div');
  private readonly announced = h('div', { class: 'hidden', role: 'status', 'aria-live': 'polite' });
  private model: MapModel | null = null;
  private tiles: Tile[] = [];
  private headings: Heading[] = [];
  private side = 8;
  private tallest = 0; // tile
  private height = 0;
  private width = 0;
  private at: Cell | null = null;
  private readonly strips = new Map<number, HTMLCanvasElement>();
  private readonly soon = perFrame(() => this.draw());

  constructor(
    label: string,
    private readonly options: MapOptions,
  ) {
    this.canvas.style.position = 'sticky';
    this.canvas.style.top = '0';
    this.root = h(
      'div',
      {
        class: 'plot map',
        tabindex: '0',
        role: 'application',
        'aria-roledescription': 'map',
        'aria-label': `${label} Arrow keys walk from block to block, Enter shows one.`,
        on: {
          keydown: (event: KeyboardEvent) => this.key(event),
          scroll: () => this.soon(),
          focus: () => this.soon(),
          blur: () => this.soon(),
          click: (event: MouseEvent) => {
            const cell = this.hit(event);
            if (cell) this.select(cell);
          },
          mousemove: (event: MouseEvent) => this.hover(event),
        },
      },
      this.canvas,
      this.sizer,
      this.announced,
    );
    new ResizeObserver(() => {
      if (this.root.clientWidth !== this.width || this.root.clientHeight !== this.height) this.layout();
    }).observe(this.root);
  }

  show(model: MapModel): void {
    this.model = model;
    this.at = this.at && model.find(this.at.group.allocator.name, addressOf(this.at)); // the rows of another map are of other spans
    this.layout();
  }

  redraw(): void {
    this.strips.clear();
    this.soon();
  }

  scrollTo(group: Group): void {
    const heading = this.headings.find((heading) => heading.group === group);
    if (heading) this.root.scrollTop = heading.y;
  }

  private layout(): void {
    const model = this.model;
    this.width = this.root.clientWidth;
    this.height = this.root.clientHeight;
    if (!model || this.width === 0) return;
    let cells = 0;
    for (const group of model.groups) for (const span of group.spans) cells += model.cells(group, span);
    this.side = cells <= 1500 ? 16 : cells <= 6000 ? 11 : cells <= 30_000 ? 8 : 6;
    this.tiles = [];
    this.strips.clear();
    this.headings = [];
    this.tallest = 0;
    let y = 0;
    for (const group of model.groups) {
      this.headings.push({ group, y });
      y = this.place(model, group, y + headHeight) + 2 * gap;
    }
    this.sizer.style.height = `${Math.max(0, y - this.height)}px`;
    this.soon();
  }

  // place puts the tiles of a group side by side and below each other, and returns where they end.
  private place(model: MapModel, group: Group, y: number): number {
    let x = 0,
      line = 0;
    const most = Math.max(1, Math.floor(this.width / this.side));
    for (const span of group.spans) {
      const cells = model.cells(group, span);
      const columns = Math.min(most, 2 ** Math.round(Math.log2(Math.sqrt(cells * 1.2))));
      const width = columns * this.side,
        height = Math.ceil(cells / columns) * this.side;
      if (x > 0 && x + width > this.width) {
        x = 0;
        y += line + gap;
        line = 0;
      }
      this.tiles.push({ group, span, cells, columns, x, y, width, height });
      line = Math.max(line, height);
      this.tallest = Math.max(this.tallest, height);
      x += width + gap;
    }
    return y + line;
  }

  private draw(): void {
    const model = this.model;
    if (!model || this.width === 0) return;
    const context = fitCanvas(this.canvas, this.width, this.height);
    const top = Math.round(this.root.scrollTop);
    context.fillStyle = colour('card');
    context.fillRect(0, 0, this.width, this.height);
    context.translate(0, -top);
    for (let y = Math.floor(top / stripHeight) * stripHeight; y < top + this.height; y += stripHeight)
      context.drawImage(this.strip(model, y), 0, y, this.width, stripHeight);
    this.mark(context);
  }

  // strip is what lies from y on, drawn once and kept while it is near what is in sight: so that scrolling is fast.
  private strip(model: MapModel, y: number): HTMLCanvasElement {
    let strip = this.strips.get(y);
    if (strip) return strip;
    strip = h('canvas');
    const context = fitCanvas(strip, this.width, stripHeight);
    context.fillStyle = colour('card');
    context.fillRect(0, 0, this.width, stripHeight);
    context.translate(0, -y);
    for (let i = this.firstTile(y); i < this.tiles.length; i++) {
      const tile = this.tiles[i] as Tile;
      if (tile.y > y + stripHeight) break;
      this.paint(context, model, tile, y, y + stripHeight);
    }
    for (const heading of this.headings)
      if (heading.y + headHeight >= y && heading.y <= y + stripHeight) this.head(context, heading.group, heading.y);
    for (const far of this.strips.keys()) if (Math.abs(far - y) > 4 * stripHeight) this.strips.delete(far);
    this.strips.set(y, strip);
    return strip;
  }

  // firstTile is the first that may be in sight: tiles are in the order of y, and those of one line differ in height.
  private firstTile(top: number): number {
    let low = 0,
      high = this.tiles.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.tiles[middle] as Tile).y + this.tallest < top) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // paint draws those cells of a tile that are between two heights, one colour after the other, for to change it takes time.
  private paint(context: CanvasRenderingContext2D, model: MapModel, tile: Tile, from: number, to: number): void {
    const { group, span, columns, x, y } = tile;
    const side = this.side,
      inner = side - 1;
    const kinds = model.kinds(group, span);
    const first = Math.max(0, Math.floor((from - y) / side)) * columns,
      last = Math.min(kinds.length, Math.ceil((to - y) / side) * columns);
    const byColour = new Map<string, number[]>();
    const framed = inner >= 7; // so that free cells are told from live ones by more than their colour
    const add = (colour: string, cell: number) => {
      const cells = byColour.get(colour);
      if (cells) cells.push(cell);
      else byColour.set(colour, [cell]);
    };
    const free = this.options.free(),
      clean = colour('map-clean'),
      unsampled = colour('strong-line');
    for (let i = first; i < last; i++) {
      const kind = kinds[i] as number;
      add(kind >= 0 ? this.options.fill(group, kind) : kind === Free ? free : kind === Clean ? clean : unsampled, i);
    }
    for (const [fill, cells] of byColour) {
      context.fillStyle = fill;
      for (const i of cells) context.fillRect(x + (i % columns) * side, y + Math.floor(i / columns) * side, inner, inner);
      if (fill !== free || !framed) continue;
      context.fillStyle = colour('card');
      for (const i of cells) context.fillRect(x + (i % columns) * side + 2, y + Math.floor(i / columns) * side + 2, inner - 4, inner - 4);
    }
  }

  private head(context: CanvasRenderingContext2D, group: Group, y: number): void {
    const { allocator, block, spans, live, free, clean } = group;
    const name = `${allocator.name}: ${cellNoun(allocator)} of ${block > 0 ? bytes(block) : 'any size'}`;
    const figures = `${plural(spans.length, spanNoun(allocator))} · live ${bytes(live)} · free ${bytes(free)}${group.known ? ` · clean ${bytes(clean)}` : ''}`;
    context.textBaseline = 'alphabetic';
    context.fillStyle = colour('text');
    context.font = '600 13px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif';
    context.fillText(name, 0, y + 22);
    const x = context.measureText(name).width + 12;
    context.font = '13px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif';
    context.fillStyle = colour('quiet');
    context.fillText(figures, x, y + 22);
  }

  private mark(context: CanvasRenderingContext2D): void {
    const box = this.at && this.boxOf(this.at);
    if (!box) return;
    context.lineWidth = 2;
    context.strokeStyle = colour('text');
    context.strokeRect(box.x - 1, box.y - 1, this.side + 1, this.side + 1);
  }

  private tileOf(cell: Cell): number {
    return this.tiles.findIndex(
      (tile) => tile.span === cell.span && tile.group.block === cell.group.block && tile.group.allocator.name === cell.group.allocator.name,
    );
  }

  private boxOf(cell: Cell): { x: number; y: number } | null {
    const tile = this.tiles[this.tileOf(cell)];
    return tile
      ? { x: tile.x + (cell.index % tile.columns) * this.side, y: tile.y + Math.floor(cell.index / tile.columns) * this.side }
      : null;
  }

  private hit(event: MouseEvent): Cell | null {
    const box = this.canvas.getBoundingClientRect();
    return this.cellAt(event.clientX - box.left, event.clientY - box.top + this.root.scrollTop);
  }

  private cellAt(x: number, y: number): Cell | null {
    for (let i = this.firstTile(y); i < this.tiles.length; i++) {
      const tile = this.tiles[i] as Tile;
      if (tile.y > y) break;
      if (x < tile.x || x >= tile.x + tile.width || y >= tile.y + tile.height) continue;
      const index = Math.floor((y - tile.y) / this.side) * tile.columns + Math.floor((x - tile.x) / this.side);
      return index < tile.cells ? { group: tile.group, span: tile.span, index } : null;
    }
    return null;
  }

  private hover(event: MouseEvent): void {
    const cell = this.hit(event);
    this.canvas.style.cursor = cell ? 'pointer' : 'default';
    this.canvas.title = cell ? this.options.describe(cell) : '';
  }

  // choose selects a cell and has it in sight.
  choose(cell: Cell): void {
    this.select(cell);
    this.reveal(cell);
  }

  private select(cell: Cell): void {
    this.at = cell;
    this.options.onSelect(cell);
    this.soon();
  }

  private key(event: KeyboardEvent): void {
    if (!this.model || this.tiles.length === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const first = this.tiles[0] as Tile;
    const at = this.at && this.tileOf(this.at) >= 0 ? this.at : null;
    if (event.key === 'Enter' || event.key === ' ') {
      this.select(at ?? { group: first.group, span: first.span, index: 0 });
    } else {
      const to = at
        ? this.neighbour(at, event.key)
        : event.key.startsWith('Arrow')
          ? { group: first.group, span: first.span, index: 0 }
          : null;
      if (!to) return;
      this.at = to;
      this.reveal(to);
      this.announced.textContent = this.options.describe(to);
      this.soon();
    }
    event.preventDefault();
  }

  private neighbour(cell: Cell, key: string): Cell | null {
    const i = this.tileOf(cell);
    const tile = this.tiles[i] as Tile;
    const box = this.boxOf(cell) as { x: number; y: number };
    const beside = (tile: Tile | undefined, last: boolean) =>
      tile ? { group: tile.group, span: tile.span, index: last ? tile.cells - 1 : 0 } : cell;
    switch (key) {
      case 'ArrowRight':
        return cell.index + 1 < tile.cells ? { ...cell, index: cell.index + 1 } : beside(this.tiles[i + 1], false);
      case 'ArrowLeft':
        return cell.index > 0 ? { ...cell, index: cell.index - 1 } : beside(this.tiles[i - 1], true);
      case 'ArrowDown':
        return cell.index + tile.columns < tile.cells
          ? { ...cell, index: cell.index + tile.columns }
          : (this.vertical(box, tile, 1) ?? cell);
      case 'ArrowUp':
        return cell.index >= tile.columns ? { ...cell, index: cell.index - tile.columns } : (this.vertical(box, tile, -1) ?? cell);
      case 'Home':
        return beside(this.tiles[0], false);
      case 'End':
        return beside(this.tiles.at(-1), true);
      default:
        return null;
    }
  }

  // vertical finds the cell of the next line of tiles that is nearest.
  private vertical(box: { x: number; y: number }, from: Tile, direction: 1 | -1): Cell | null {
    let best: Tile | null = null;
    for (let i = this.tiles.indexOf(from) + direction; i >= 0 && i < this.tiles.length; i += direction) {
      const tile = this.tiles[i] as Tile;
      if (tile.y === from.y) continue;
      if (best && tile.y !== best.y) break;
      if (!best || Math.abs(tile.x - box.x) < Math.abs(best.x - box.x)) best = tile;
    }
    if (!best) return null;
    const column = Math.max(0, Math.min(best.columns - 1, Math.floor((box.x - best.x) / this.side)));
    const row = direction === 1 ? 0 : Math.ceil(best.cells / best.columns) - 1;
    return { group: best.group, span: best.span, index: Math.min(best.cells - 1, row * best.columns + column) };
  }

  private reveal(cell: Cell): void {
    const box = this.boxOf(cell);
    if (!box) return;
    if (box.y < this.root.scrollTop + headHeight) this.root.scrollTop = box.y - headHeight;
    else if (box.y + 2 * this.side > this.root.scrollTop + this.height) this.root.scrollTop = box.y + 2 * this.side - this.height;
  }
}
