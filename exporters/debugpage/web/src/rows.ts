// A list of up to millions of rows, of which only those in sight are elements.

import { h, perFrame } from './dom';

const rowHeight = 25; // pixels at a root font of 14; read from the first row that was drawn
const tallest = 15e6; // pixels that every browser's element may be tall

export interface RowColumn {
  name: string;
  width: string;
  number?: boolean;
}

export interface RowOptions {
  label: string;
  columns: RowColumn[];
  cells(row: number): string[]; // of a row, from 0 to the length
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
  private measured = false; // how high a row is
  private readonly soon = perFrame(() => this.draw());

  constructor(private readonly options: RowOptions) {
    const head = h(
      'tr',
      { 'aria-rowindex': '1' },
      options.columns.map(({ name, width, number }) =>
        h('th', { scope: 'col', role: 'columnheader', class: number ? 'number' : undefined, style: { width } }, name),
      ),
    );
    this.table = h('table', { role: 'grid', 'aria-label': options.label, 'aria-readonly': 'true' }, h('thead', null, head), this.body);
    this.sizer = h('div', { class: 'sizer' }, this.table);
    this.root = h(
      'div',
      {
        class: 'rows',
        tabindex: '0',
        role: 'group',
        'aria-label': `${options.label}. Arrow keys and Page Up and Down scroll, Enter shows a row.`,
        on: {
          scroll: () => this.soon(),
          keydown: (event: KeyboardEvent) => this.key(event),
          click: (event: MouseEvent) => this.click(event),
        },
      },
      this.sizer,
    );
    new ResizeObserver(() => {
      this.first = -1;
      this.measured = false;
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
    // A shorter list does not scroll by itself: its table is where the rows were, and counts for how far one can.
    const most = Math.max(0, Math.min(this.whole, tallest) - this.root.clientHeight);
    if (atEnd || this.root.scrollTop > most) this.root.scrollTop = most;
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
      this.fill(first, count);
      if (count > 0 && !this.measured) this.measure();
    }
    const { scrollTop } = this.root;
    const shift = Math.round(this.whole <= tallest ? first * this.height : scrollTop + first * this.height - offset); // or texts are blurred
    this.table.style.transform = `translateY(${shift}px)`;
    this.table.tHead?.style.setProperty('transform', `translateY(${Math.max(0, scrollTop - shift)}px)`);
  }

  // fill has the elements show so many rows from the first on. Elements are used again, for making them takes most of the time.
  private fill(first: number, count: number): void {
    const { rows } = this.body;
    while (rows.length > count) rows[rows.length - 1]?.remove();
    while (rows.length < count) {
      this.body.append(
        h(
          'tr',
          null,
          this.options.columns.map(({ number }) => h('td', { role: 'gridcell', class: number ? 'number' : undefined }, ' ')),
        ),
      );
    }
    for (let i = 0; i < count; i++) {
      const tr = rows[i] as HTMLTableRowElement,
        row = first + i;
      const list = this.options.cells(row);
      for (let j = 0; j < list.length; j++) {
        const node = tr.cells[j]?.firstChild as Text;
        if (node.data !== list[j]) node.data = list[j] as string;
      }
      tr.className = this.options.failed?.(row) ? 'failed' : '';
      tr.ariaRowIndex = String(row + 2);
      tr.ariaSelected = String(row === this.selected);
    }
    this.first = first;
    this.shown = count;
  }

  private measure(): void {
    const height = this.body.rows[0]?.getBoundingClientRect().height;
    const head = this.table.tHead?.getBoundingClientRect().height;
    if (!height || !head) return;
    this.measured = true;
    if (Math.abs(height - this.height) < 0.1 && Math.abs(head - this.head) < 0.1) return;
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
    const top = row * this.height,
      offset = this.offset,
      room = this.root.clientHeight - this.head;
    let to = offset;
    if (top < offset) to = top;
    else if (top + this.height > offset + room) to = top + this.height - room;
    if (to === offset) return;
    const { scrollHeight, clientHeight } = this.root;
    this.root.scrollTop = this.whole <= tallest ? to : (to / (this.whole - clientHeight)) * (scrollHeight - clientHeight);
  }

  private click(event: MouseEvent): void {
    const row = (event.target as Element).closest('tbody tr');
    if (row instanceof HTMLTableRowElement) this.select(this.first + row.sectionRowIndex);
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const middle = Math.floor(this.offset / this.height);
    const at = this.selected >= 0 ? this.selected : middle;
    const page = Math.max(1, Math.floor(this.root.clientHeight / this.height) - 2);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.length - 1, Enter: at }[
      event.key
    ];
    if (to === undefined) return;
    event.preventDefault();
    this.select(Math.max(0, Math.min(this.length - 1, to)));
  }
}
