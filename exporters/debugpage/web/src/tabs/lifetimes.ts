// Lifetimes: for how long the blocks of each site live, as a table of classes whose cells are the darker the more blocks they have.

import { api } from '../api';
import type { Context, View } from '../context';
import { h, replace, type Child } from '../dom';
import { bytes, count, duration, plural, share } from '../format';
import { mix } from '../flamecanvas';
import { calls, card, segments, siteName } from '../parts';
import { shortCall } from '../tables';
import { colour } from '../theme';
import type { Lifetimes, Lived } from '../types';

type Of = 'ended' | 'live';
type Order = 'bytes' | 'short' | 'long';

const atFirst = 25;

export function lifetimesTab(context: Context): View {
  const { state } = context;
  let of: Of = state.get('of') === 'live' ? 'live' : 'ended';
  let order: Order = (['bytes', 'short', 'long'] as const).find((o) => o === state.get('order')) ?? 'bytes';
  let most = atFirst;
  let answer: Lifetimes | null = null;
  const table = h('div', null);
  const advice = h('div', null);
  const detail = h('div', { class: 'detail', tabindex: '-1' });

  const draw = () => {
    if (!answer) return;
    const rows = sorted(answer.rows ?? [], order).filter((row) => blocks(row[of]) > 0);
    const none = (answer.rows ?? []).length - rows.length;
    replace(advice, advices(context, answer.rows ?? [], show));
    replace(
      table,
      heat(context, answer, rows.slice(0, most), of, show),
      rows.length > most &&
        h(
          'button',
          {
            type: 'button',
            class: 'link',
            on: {
              click: () => {
                most = Math.max(1000, most * 2);
                draw();
              },
            },
          },
          plural(rows.length - most, 'more row'),
        ),
      none > 0 &&
        h(
          'p',
          { class: 'quiet' },
          of === 'ended'
            ? `${plural(none, 'site')} more ${none === 1 ? 'has' : 'have'} blocks of which none was freed.`
            : `${plural(none, 'site')} more ${none === 1 ? 'has' : 'have'} no live block.`,
        ),
    );
  };
  function show(row: Lived): void {
    replace(detail, h('div', { class: 'card' }, about(context, row)));
    detail.focus();
  }

  const root = h(
    'div',
    { class: 'stack' },
    advice,
    card(
      'How long blocks live',
      null,
      h(
        'div',
        { class: 'bar-of-controls' },
        segments<Of>(
          'Blocks',
          [
            { id: 'ended', name: 'That were freed' },
            { id: 'live', name: 'That are live, by age' },
          ],
          of,
          (chosen) => {
            of = chosen;
            state.set({ of });
            draw();
          },
        ),
        segments<Order>(
          'First',
          [
            { id: 'bytes', name: 'Most bytes' },
            { id: 'short', name: 'Shortest lives' },
            { id: 'long', name: 'Longest lives' },
          ],
          order,
          (chosen) => {
            order = chosen;
            state.set({ order });
            draw();
          },
        ),
      ),
      table,
    ),
    detail,
  );
  return {
    root,
    atUS: () => answer?.at_us ?? 0,
    async refresh() {
      answer = await api.lifetimes();
      await context.tables.need(answer.known);
      draw();
    },
    redraw: draw,
  };
}

function blocks(column: number[]): number {
  return column.reduce((sum, n) => sum + n, 0);
}

function sorted(rows: Lived[], order: Order): Lived[] {
  const half = (row: Lived, none: number) => (row.half_us < 0 ? none : row.half_us);
  const list = [...rows];
  if (order === 'short') list.sort((a, b) => half(a, Infinity) - half(b, Infinity) || b.ended_bytes - a.ended_bytes);
  if (order === 'long') list.sort((a, b) => half(b, Infinity) - half(a, Infinity) || b.live_bytes - a.live_bytes);
  return list;
}

function advices(context: Context, rows: Lived[], show: (row: Lived) => void): Child {
  const list = rows.filter((row) => row.advice !== '').slice(0, 3);
  if (list.length === 0) return null;
  return h(
    'div',
    { class: 'answers' },
    list.map((row) =>
      h(
        'section',
        { class: 'card answer alarm' },
        h('h2', null, 'What stands out'),
        h('p', { class: 'lead' }, h('span', { class: 'code' }, context.tables.site(row.site))),
        h('p', { class: 'quiet' }, context.tables.details(row.site).join(' · ')),
        h('p', null, row.advice),
        h(
          'p',
          { class: 'more' },
          h('button', { type: 'button', class: 'link', on: { click: () => show(row) } }, 'Its calls, and who frees'),
        ),
      ),
    ),
  );
}

// Class is some of the server's classes of time, put together so that all fit beside each other.
interface Class {
  most: number;
  from: number;
  to: number;
}

const mostClasses = 7;

function classesOf(answer: Lifetimes, rows: Lived[], of: Of): Class[] {
  const used = answer.most_us.map((_, i) => rows.some((row) => (row[of][i] ?? 0) > 0));
  const first = Math.max(0, used.indexOf(true)),
    last = Math.max(first, used.lastIndexOf(true));
  const each = Math.ceil((last - first + 1) / mostClasses);
  const classes: Class[] = [];
  for (let to = last; to >= first; to -= each) classes.unshift({ most: answer.most_us[to] ?? 0, from: Math.max(0, to - each + 1), to });
  return classes;
}

function heat(context: Context, answer: Lifetimes, rows: Lived[], of: Of, show: (row: Lived) => void): HTMLElement {
  const classes = classesOf(answer, rows, of);
  const caption =
    of === 'ended'
      ? 'Of the blocks that were freed, how many lived for so long at most'
      : 'Of the blocks that are live, how many have lived for so long at most';
  return h(
    'div',
    { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': caption },
    h(
      'table',
      { class: 'heat' },
      h('caption', null, `${caption}, in percent of its site`),
      h(
        'thead',
        null,
        h(
          'tr',
          null,
          h('th', { scope: 'col', class: 'wide' }, 'Site'),
          h('th', { scope: 'col', class: 'number' }, 'Blocks'),
          h('th', { scope: 'col', class: 'number' }, 'Bytes'),
          h('th', { scope: 'col', class: 'number' }, 'Half live up to'),
          classes.map(({ most }) => h('th', { scope: 'col', class: 'cell' }, `≤ ${duration(most)}`)),
          h('th', { scope: 'col' }, 'Calls'),
        ),
      ),
      h(
        'tbody',
        null,
        rows.map((row) => {
          const all = blocks(row[of]);
          return h(
            'tr',
            null,
            h('th', { scope: 'row' }, siteName(context, row.site)),
            h('td', { class: 'number' }, count(all)),
            h('td', { class: 'number' }, bytes(of === 'ended' ? row.ended_bytes : row.live_bytes)),
            h('td', { class: 'number' }, row.half_us < 0 ? 'not known' : duration(row.half_us)),
            classes.map(({ from, to }) => cell(blocks(row[of].slice(from, to + 1)), all)),
            h(
              'td',
              null,
              h(
                'button',
                {
                  type: 'button',
                  class: 'link',
                  'aria-label': `Calls of ${context.tables.label(row.site)}`,
                  on: { click: () => show(row) },
                },
                'Calls',
              ),
            ),
          );
        }),
      ),
    ),
  );
}

function cell(n: number, all: number): HTMLElement {
  const part = all > 0 ? n / all : 0;
  if (n === 0) return h('td', { class: 'cell quiet' }, '');
  return h(
    'td',
    { class: 'cell', title: plural(n, 'block'), style: { background: mix(hexOf('card'), hexOf('heat'), 0.1 + 0.5 * Math.sqrt(part)) } },
    part < 0.005 ? '<1' : String(Math.round(100 * part)),
  );
}

function hexOf(name: string): string {
  const value = colour(name);
  return value.length === 4 ? `#${[...value.slice(1)].map((c) => c + c).join('')}` : value;
}

function about(context: Context, row: Lived): HTMLElement {
  const ended = blocks(row.ended),
    live = blocks(row.live);
  const item = (name: string, value: string) => [h('dt', null, name), h('dd', null, value)];
  return h(
    'div',
    null,
    h('h3', null, siteName(context, row.site)),
    row.advice && h('p', null, row.advice),
    h(
      'dl',
      null,
      item('Freed', `${bytes(row.ended_bytes)} in ${plural(ended, 'block')}`),
      item('Live', `${bytes(row.live_bytes)} in ${plural(live, 'block')}`),
      item('Half live up to', row.half_us < 0 ? 'not known' : duration(row.half_us)),
      item('99 % live up to', row.most_us < 0 ? 'not known' : duration(row.most_us)),
      row.freed_elsewhere > 0
        ? item('Freed by another goroutine', `${plural(row.freed_elsewhere, 'block')}, ${share(row.freed_elsewhere, ended)}`)
        : [],
    ),
    h('h3', null, 'Allocated by'),
    calls(context, row.site),
    row.freed_by &&
      row.freed_by.length > 0 && [
        h('h3', null, `Freed by, ${plural(row.freed_by_blocks, 'block')}`),
        h(
          'ol',
          { class: 'calls' },
          row.freed_by.map((frame) => h('li', null, h('span', { class: 'code' }, shortCall(context.tables.frame(frame))))),
        ),
      ],
  );
}
