// Small parts that several tabs show.

import type { Context } from './context';
import { fitCanvas, h, replace, uniqueID, type Child } from './dom';
import { bytes, plural, share, shortFunction } from './format';
import { colour } from './theme';

export function card(title: string, aside: Child, ...children: Child[]): HTMLElement {
  const id = uniqueID('card');
  return h('section', { class: 'card', 'aria-labelledby': id }, h('header', null, h('h2', { id, class: 'grow' }, title), aside), children);
}

// siteName is a place that allocates, in two lines: its function, and where it is and for whom. A mark is the colour that it is drawn in.
export function siteName(context: Context, site: number, mark?: string): HTMLElement {
  const { tables } = context;
  return h(
    'span',
    { class: 'site' },
    mark && swatch(mark),
    h('span', { class: 'code' }, tables.site(site)),
    h('small', null, tables.details(site).join(' · ')),
  );
}

// sentence is a text of the server in which names of Go, such as heapprofile.New(heapprofile.Options{}), are set as code.
export function sentence(text: string): Child[] {
  return text.split(/(\b[a-z]\w*\.[A-Z]\w*(?:\(\S*\))?)/).map((part, i) => (i % 2 === 1 ? h('code', null, part) : part));
}

// calls is a whole stack, the innermost call first.
export function calls(context: Context, site: number): HTMLElement {
  const { tables } = context;
  const stack = tables.stack(site);
  if (stack.length === 0)
    return h(
      'p',
      { class: 'quiet' },
      site < 0 ? 'This block was not sampled, so that nobody knows who allocated it.' : 'The calls are not known.',
    );
  const list = h(
    'ol',
    { class: 'calls', 'aria-label': 'Calls, the innermost first' },
    stack.map(({ fn, file, line }) =>
      h('li', null, h('span', { class: 'code', title: fn }, shortFunction(fn)), h('small', null, `${file}:${line}`)),
    ),
  );
  return h('div', null, list, tables.isCut(site) && h('p', { class: 'quiet' }, 'There may have been more calls.'));
}

// meter is a bar beside a number that says the same.
export function meter(part: number, whole: number, name = 'c0'): HTMLElement {
  const width = whole > 0 ? Math.max(0, Math.min(100, (100 * part) / whole)) : 0;
  return h('span', { class: 'meter', 'aria-hidden': 'true' }, h('i', { style: { width: `${width}%`, background: `var(--${name})` } }));
}

export function swatch(name: string): HTMLElement {
  return h('span', { class: 'swatch', style: { background: `var(--${name})` }, 'aria-hidden': 'true' });
}

export interface Part {
  name: string;
  bytes: number;
  colour: string;
  note?: string;
}

// strip is one bar of parts that make a whole, with a legend that has their figures.
export function strip(label: string, parts: Part[], whole: number): HTMLElement {
  const shown = parts.filter((part) => part.bytes > 0);
  return h(
    'div',
    null,
    h(
      'div',
      { class: 'strip', role: 'img', 'aria-label': `${label}: ${shown.map((part) => `${part.name} ${bytes(part.bytes)}`).join(', ')}` },
      shown.map((part) =>
        h('i', {
          style: { width: `${(100 * part.bytes) / whole}%`, background: `var(--${part.colour})` },
          title: `${part.name} ${bytes(part.bytes)}`,
        }),
      ),
    ),
    h(
      'ul',
      { class: 'legend' },
      parts.map((part) =>
        h(
          'li',
          null,
          swatch(part.colour),
          h(
            'span',
            null,
            `${part.name} `,
            h('strong', null, bytes(part.bytes)),
            h('span', { class: 'quiet' }, ` ${share(part.bytes, whole)}${part.note ? ` · ${part.note}` : ''}`),
          ),
        ),
      ),
    ),
  );
}

// segments is a choice of one of a few.
export function segments<T extends string>(
  label: string,
  choices: { id: T; name: string; off?: string | undefined; title?: string }[],
  chosen: T,
  choose: (id: T) => void,
): HTMLElement {
  const buttons = choices.map(({ id, name, off, title }) =>
    h(
      'button',
      {
        type: 'button',
        'aria-pressed': String(id === chosen),
        disabled: Boolean(off),
        title: off ?? title,
        on: {
          click: () => {
            buttons.forEach((button, i) => button.setAttribute('aria-pressed', String(choices[i]?.id === id)));
            choose(id);
          },
        },
      },
      name,
    ),
  );
  const id = uniqueID('choice');
  return h(
    'div',
    { class: 'choice' },
    h('span', { id, class: 'quiet' }, label),
    h('div', { class: 'segments', role: 'group', 'aria-labelledby': id }, buttons),
  );
}

export interface TableColumn<T> {
  name: string;
  number?: boolean; // aligned to the right
  bar?: boolean; // has a bar as wide as the others
  by?: (row: T) => number | string; // what it is sorted by
  cell: (row: T) => Child;
}

// Table shows rows, sorted by the column whose heading was pressed last. The first column heads its row.
export class Table<T> {
  readonly root: HTMLElement;
  private rows: T[] = [];
  private sorted: { column: number; descending: boolean } | null = null;
  private most: number;
  private readonly head = h('thead');
  private readonly body = h('tbody');
  private readonly more = h('p', { class: 'quiet' });
  private readonly captioned = h('caption');

  constructor(
    private readonly columns: TableColumn<T>[],
    caption: string,
    private readonly atFirst = 20,
  ) {
    this.most = atFirst;
    this.captioned.textContent = caption;
    this.root = h(
      'div',
      null,
      h(
        'div',
        { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': caption },
        h('table', null, this.captioned, this.head, this.body),
      ),
      this.more,
    );
    this.drawHead();
  }

  caption(text: string): void {
    this.captioned.textContent = text;
  }

  show(rows: T[]): void {
    this.rows = rows;
    this.draw();
  }

  private drawHead(): void {
    replace(
      this.head,
      h(
        'tr',
        null,
        this.columns.map((column, i) => {
          const order = this.sorted?.column === i ? (this.sorted.descending ? 'descending' : 'ascending') : null;
          const name = column.by ? h('button', { type: 'button', on: { click: () => this.sort(i) } }, column.name) : column.name;
          return h('th', { scope: 'col', class: i === 0 ? 'wide' : column.number ? 'number' : undefined, 'aria-sort': order }, name);
        }),
      ),
    );
  }

  private sort(column: number): void {
    this.sorted = { column, descending: this.sorted?.column === column ? !this.sorted.descending : Boolean(this.columns[column]?.number) };
    this.drawHead();
    this.draw();
  }

  private draw(): void {
    const rows = [...this.rows];
    const by = this.sorted && this.columns[this.sorted.column]?.by;
    if (by) {
      const sign = this.sorted?.descending ? -1 : 1;
      rows.sort((a, b) => {
        const x = by(a),
          y = by(b);
        return sign * (typeof x === 'string' ? x.localeCompare(String(y)) : x - Number(y));
      });
    }
    replace(
      this.body,
      rows.slice(0, this.most).map((row) =>
        h(
          'tr',
          null,
          this.columns.map((column, i) =>
            h(
              i === 0 ? 'th' : 'td',
              { scope: i === 0 ? 'row' : undefined, class: i === 0 ? 'wide' : column.number ? 'number' : column.bar ? 'bar' : undefined },
              column.cell(row),
            ),
          ),
        ),
      ),
    );
    const left = rows.length - this.most;
    replace(
      this.more,
      left > 0 && h('button', { type: 'button', class: 'link', on: { click: () => this.showMore() } }, `${plural(left, 'more row')}`),
    );
  }

  private showMore(): void {
    this.most = this.most < 1000 ? Math.max(1000, this.atFirst) : this.most + 1000;
    this.draw();
    if (!this.more.hasChildNodes()) this.root.querySelector<HTMLElement>('.scroll')?.focus({ preventScroll: true }); // the button is gone
  }
}

// callsColumn has a button that shows the calls of a row's site.
export function callsColumn<T extends { site: number }>(context: Context, show: (site: number) => void): TableColumn<T> {
  return {
    name: 'Calls',
    cell: ({ site }) =>
      h(
        'button',
        { type: 'button', class: 'link', 'aria-label': `Calls of ${context.tables.label(site)}`, on: { click: () => show(site) } },
        'Calls',
      ),
  };
}

// spark is a small plot of values from 0 on, beside numbers that say what matters of it.
export function spark(values: number[], name = 'c0'): HTMLCanvasElement {
  const canvas = h('canvas', { class: 'spark', 'aria-hidden': 'true' });
  const width = 112,
    height = 24;
  const draw = fitCanvas(canvas, width, height);
  const most = values.reduce((a, b) => Math.max(a, b), 0);
  if (values.length < 2 || most <= 0) return canvas;
  const x = (i: number) => (i * width) / (values.length - 1),
    y = (value: number) => height - 1 - (value / most) * (height - 3);
  draw.beginPath();
  values.forEach((value, i) => (i === 0 ? draw.moveTo(x(i), y(value)) : draw.lineTo(x(i), y(value))));
  draw.strokeStyle = colour(name);
  draw.lineWidth = 1.5;
  draw.stroke();
  draw.lineTo(width, height);
  draw.lineTo(0, height);
  draw.globalAlpha = 0.18;
  draw.fillStyle = colour(name);
  draw.fill();
  return canvas;
}
