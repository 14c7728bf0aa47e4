// A list of up to millions of rows, of which only those in sight are elements.

import { h, perFrame, replace, type Child } from './dom';

const rowHeight = 25; // pixels at a root font of 14; read from the first row that was drawn
const tallest = 15e6; // pixels that every browser's element may be tall

export interface RowColumn { name: string; width: string; number?: boolean }

export interface RowOptions {
  label: string;
  columns: RowColumn[];
  cells(row: number): Child[]; // of a row, from 0 to the length
  failed?(row: number): boolean;
  onSelect(row: number): void;
}

export class Rows {
  readonly root: HTMLElement;
  private readonly body = h('tbody');
  private readonly table: HTMLTableElement;
  private readonly sizer: HTMLElement;
  private length = 0;
  private height = rowHeight;
  private head = rowHeight;
  private selected = -1;
  private first = -1; // that is an element, and how many are
  private shown = 0;
  private readonly soon = perFrame(() => this.draw());

  constructor(private readonly options: RowOptions) {
    const head = h('tr', { 'aria-rowindex': '1' }, options.columns.map(({ name, width, number }) =>
      h('th', { scope: 'col', role: 'columnheader', class: number ? 'number' : undefined, style: { width } }, name)));
    this.table = h('table', { role: 'grid', 'aria-label': options.label, 'aria-readonly': 'true' }, h('thead', null, head), this.body);
    this.sizer = h('div', { class: 'sizer' }, this.table);
    this.root = h('div', {
      class: 'rows', tabindex: '0', role: 'group', 'aria-label': `${options.label}. Arrow keys and Page Up and Down scroll, Enter shows a row.`,
      on: { scroll: () => this.soon(), keydown: (event: KeyboardEvent) => this.key(event), click: (event: MouseEvent) => this.click(event) },
    }, this.sizer);
    new ResizeObserver(() => {
      this.first = -1;
      this.soon();
    }).observe(this.root);
  }

  // show has the list show so many rows, and be at its end or where it was.
  show(length: number, atEnd: boolean): void {
    this.length = length;
    this.selected = -1;
    this.first = -1;
    this.table.setAttribute('aria-rowcount', String(length + 1));
    this.size();
    if (atEnd) this.root.scrollTop = this.root.scrollHeight;
    this.soon();
  }

  private get whole(): number {
    return this.head + this.length * this.height;
  }

  private size(): void {
    this.sizer.style.height = `${Math.min(this.whole, tallest)}px`;
  }

  // offset is how far down the list is, in pixels as if no element could be too tall.
  private get offset(): number {
    const { scrollTop, scrollHeight, clientHeight } = this.root;
    if (this.whole <= tallest) return scrollTop;
    return (scrollTop / Math.max(1, scrollHeight - clientHeight)) * (this.whole - clientHeight);
  }

  private draw(): void {
    const { clientHeight } = this.root;
    if (clientHeight === 0) return;
    const offset = this.offset;
    const spare = 4;
    const first = Math.max(0, Math.min(Math.floor(offset / this.height) - spare, this.length));
    const count = Math.min(this.length - first, Math.ceil(clientHeight / this.height) + 2 * spare);
    if (first !== this.first || count !== this.shown) {
      this.first = first;
      this.shown = count;
      replace(this.body, Array.from({ length: count }, (_, i) => this.row(first + i)));
      this.measure();
    }
    const { scrollTop } = this.root;
    const shift = this.whole <= tallest ? first * this.height : scrollTop + first * this.height - offset;
    this.table.style.transform = `translateY(${shift}px)`;
    const stuck = Math.max(0, scrollTop - shift);
    this.table.tHead?.style.setProperty('transform', `translateY(${stuck}px)`);
  }

  private row(row: number): HTMLTableRowElement {
    const { columns, cells, failed } = this.options;
    const list = cells(row);
    return h('tr', { 'aria-rowindex': String(row + 2), 'aria-selected': String(row === this.selected), class: failed?.(row) ? 'failed' : undefined, 'data-row': String(row) },
      columns.map((column, i) => h('td', { role: 'gridcell', class: column.number ? 'number' : undefined }, list[i] ?? '')));
  }

  private measure(): void {
    const height = this.body.rows[0]?.getBoundingClientRect().height;
    const head = this.table.tHead?.getBoundingClientRect().height;
    if (!height || !head || (Math.abs(height - this.height) < 0.1 && Math.abs(head - this.head) < 0.1)) return;
    this.height = height;
    this.head = head;
    this.first = -1;
    this.size();
    this.soon();
  }

  private select(row: number): void {
    if (row < 0 || row >= this.length) return;
    this.selected = row;
    this.reveal(row);
    this.first = -1;
    this.draw();
    this.options.onSelect(row);
  }

  private reveal(row: number): void {
    const top = row * this.height, offset = this.offset, room = this.root.clientHeight - this.head;
    let to = offset;
    if (top < offset) to = top;
    else if (top + this.height > offset + room) to = top + this.height - room;
    if (to === offset) return;
    const { scrollHeight, clientHeight } = this.root;
    this.root.scrollTop = this.whole <= tallest ? to : (to / (this.whole - clientHeight)) * (scrollHeight - clientHeight);
  }

  private click(event: MouseEvent): void {
    const row = (event.target as Element).closest('tr')?.dataset['row'];
    if (row !== undefined) this.select(Number(row));
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const middle = Math.floor(this.offset / this.height);
    const at = this.selected >= 0 ? this.selected : middle;
    const page = Math.max(1, Math.floor(this.root.clientHeight / this.height) - 2);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.length - 1, Enter: at }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.select(Math.max(0, Math.min(this.length - 1, to)));
  }
}
