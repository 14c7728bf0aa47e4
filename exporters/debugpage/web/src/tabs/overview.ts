// The overview: what grew, who holds it, how it lies; then the figures, by child, and where the memory of the process is.

import { api } from '../api';
import { isLive, isProcess, timeOf, type Context, type View } from '../context';
import { h, replace } from '../dom';
import { bytes, count, legible, plural, rate, share } from '../format';
import { card, meter, spark, strip, swatch, Table, type Part } from '../parts';
import { Stacked } from '../stacked';
import { areasOf, loadTimeline, timesOf } from '../timelines';
import { grew, holds, lies, link } from './answers';
import type { Known, Leaks, MemoryMap, RSS, Snapshot, Stats, Tab } from '../types';

interface NodeRow {
  node: number;
  live: number;
  blocks: number;
  peak: number;
  allocated: number;
  failures: number;
  limit: number;
}

export function overview(context: Context): View {
  const answers = h('div', { class: 'answers' });
  const figures = h('div', null);
  const plot = new Stacked(200, 'Live bytes over time, by child.');
  const plotLegend = h('ul', { class: 'legend' });
  const memory = h('div', null);
  const nodes = nodeTable(context);
  const root = h(
    'div',
    { class: 'stack' },
    answers,
    h('section', { class: 'card', 'aria-label': 'The figures' }, figures),
    context.page.tabs['timeline'] === ''
      ? card('Live memory by child', link(context, 'timeline', 'Select a span of time'), plot.root, plotLegend)
      : null,
    card('By child', h('span', { class: 'quiet' }, 'each with what its own children have'), nodes.root),
    card('Where the memory of the process is', h('span', { class: 'quiet' }, 'RSS, as the kernel counts it'), memory),
  );
  const due = new Map<Tab, number>();
  let last: Snapshot | null = null;
  let leaks: Leaks | null = null,
    map: MemoryMap | null = null;

  const drawPlot = async () => {
    if (context.page.tabs['timeline'] !== '') return;
    const timeline = await loadTimeline(context, 'child');
    const areas = areasOf(context, timeline, 8);
    plot.show(
      timesOf(context, timeline),
      areas,
      timeline.total,
      context.marks.map((mark) => ({ at: timeOf(context, mark.atUS), name: mark.name })),
    );
    replace(
      plotLegend,
      areas.map((area) => h('li', null, swatch(area.colour), area.name)),
    );
  };

  let marks = context.marks.length; // that the leaks are since

  return {
    root,
    close: () => plot.close(),
    async refresh() {
      if (marks !== context.marks.length) due.delete('leaks');
      marks = context.marks.length;
      const snapshot = (last = await api.snapshot());
      await context.tables.need(snapshot.known);
      const show = () => replace(answers, grew(context, leaks, snapshot), holds(context, snapshot), lies(context, map, snapshot));
      show();
      replace(figures, figureList(snapshot));
      nodes.show(nodeRows(context, snapshot));
      replace(memory, resident(snapshot));
      await drawPlot();
      await Promise.all([
        later(context, due, 'leaks', api.leaks, (answer) => {
          if (!leaks || answer.since_us >= leaks.since_us) leaks = answer; // or it was asked for before a mark
          show();
        }),
        later(context, due, 'map', api.map, (answer) => {
          map = answer;
          show();
        }),
      ]);
    },
    tick() {
      if (last) {
        replace(figures, figureList((last = context.history.upToDate(last))));
        nodes.show(nodeRows(context, last));
      }
      void drawPlot().catch(context.complain);
    },
    redraw: () => plot.redraw(),
  };
}

// later gets what another tab shows, if there is data for it, and less often if that takes long.
async function later<T extends { known: Known }>(
  context: Context,
  due: Map<Tab, number>,
  tab: Tab,
  get: () => Promise<T>,
  show: (answer: T) => void,
): Promise<void> {
  const began = performance.now();
  if (context.page.tabs[tab] !== '' || began < (due.get(tab) ?? 0)) return;
  const answer = await get();
  await context.tables.need(answer.known);
  show(answer);
  due.set(tab, performance.now() + 50 * (performance.now() - began));
}

const nearLimit = 0.9; // of a limit

function failures(stats: Pick<Stats, 'failed_allocations' | 'failed_reallocations' | 'failed_frees'>): number {
  return stats.failed_allocations + stats.failed_reallocations + stats.failed_frees;
}

function figureList(snapshot: Snapshot): HTMLElement {
  const { total } = snapshot;
  const failed = failures(total);
  const what = [
    [total.failed_allocations, 'allocations'],
    [total.failed_reallocations, 'reallocations'],
    [total.failed_frees, 'frees'],
  ] as const;
  const figure = (name: string, value: string, small: string, bad = false) =>
    h('div', { class: 'figure' }, h('dt', null, name), h('dd', { class: bad ? 'bad' : undefined }, value, h('small', null, small)));
  return h(
    'dl',
    { class: 'figures' },
    figure('Live', bytes(total.live), `in ${plural(total.live_blocks, 'block')}`),
    figure(
      'Peak',
      bytes(total.peak),
      total.peak_bound > 0
        ? `give or take ${bytes(total.peak_bound)}`
        : total.peak > 0
          ? `now ${share(total.live, total.peak)} of it`
          : 'none yet',
    ),
    snapshot.rate_us > 0
      ? figure('Allocated', `${bytes(snapshot.allocated_per_second)}/s`, `${rate(snapshot.allocations_per_second)} blocks a second`)
      : figure('Allocated', bytes(total.allocated), `in ${plural(total.allocations, 'allocation')}`),
    snapshot.rate_us > 0
      ? figure('Freed', `${bytes(snapshot.freed_per_second)}/s`, `${bytes(total.freed)} in all`)
      : figure('Freed', bytes(total.freed), `in ${plural(total.frees, 'free')}`),
    figure(
      'Failures',
      count(failed),
      failed === 0
        ? 'none'
        : what
            .filter(([n]) => n > 0)
            .map(([n, name]) => `${count(n)} ${name}`)
            .join(', '),
      failed > 0,
    ),
    snapshot.rss
      ? figure('RSS', bytes(snapshot.rss.rss), `${bytes(snapshot.rss.tracked)} of it by allocators`)
      : figure('Slack', bytes(total.slack), 'granted beyond what was asked for'),
  );
}

// nodeRows are the nodes of a snapshot, with what the last tick says of them where there is one: so that they are those of the figures above.
function nodeRows(context: Context, snapshot: Snapshot): NodeRow[] {
  const { nodes } = snapshot;
  return nodes.node.map((node, i) => {
    const row: NodeRow = {
      node,
      live: nodes.live[i] ?? 0,
      blocks: nodes.live_blocks[i] ?? 0,
      peak: nodes.peak[i] ?? 0,
      allocated: nodes.allocated[i] ?? 0,
      limit: nodes.limit[i] ?? -1,
      failures: (nodes.failed_allocations[i] ?? 0) + (nodes.failed_reallocations[i] ?? 0) + (nodes.failed_frees[i] ?? 0),
    };
    return snapshot.at_us === context.history.recent.at(-1)?.atUS ? { ...row, ...context.history.node(node) } : row;
  });
}

// nodeTable has the children below their parents, the one that holds most first.
function nodeTable(context: Context): { root: HTMLElement; show(rows: NodeRow[]): void } {
  const { tables, history } = context;
  let most = 0;
  const live = isLive(context);
  const table = new Table<NodeRow>(
    [
      {
        name: 'Name',
        by: (row) => tables.path(row.node),
        cell: (row) =>
          h('span', { class: 'name', style: { 'padding-left': `${1.1 * tables.depth(row.node)}rem` } }, legible(tables.name(row.node))),
      },
      { name: 'Live', number: true, by: (row) => row.live, cell: (row) => bytes(row.live) },
      { name: 'Share', bar: true, cell: (row) => meter(row.live, most) },
      ...(live ? [{ name: 'Last minutes', cell: (row: NodeRow) => spark(history.nodeValues(row.node, 300)) }] : []),
      { name: 'Blocks', number: true, by: (row) => row.blocks, cell: (row) => count(row.blocks) },
      { name: 'Peak', number: true, by: (row) => row.peak, cell: (row) => bytes(row.peak) },
      live
        ? {
            name: 'Allocates',
            number: true,
            by: (row) => history.nodeRate(row.node, 10e6),
            cell: (row) => `${bytes(history.nodeRate(row.node, 10e6))}/s`,
          }
        : { name: 'Allocated', number: true, by: (row) => row.allocated, cell: (row) => bytes(row.allocated) },
      {
        name: 'Failures',
        number: true,
        by: (row) => row.failures,
        cell: (row) => h('span', { class: row.failures > 0 ? 'bad' : 'quiet' }, count(row.failures)),
      },
      ...(isProcess(context) // of others it is not known
        ? [
            {
              name: 'Limit',
              number: true,
              by: (row: NodeRow) => row.limit,
              cell: (row: NodeRow) =>
                row.limit < 0
                  ? h('span', { class: 'quiet' }, 'none')
                  : h(
                      'span',
                      { class: row.live > nearLimit * row.limit ? 'bad' : undefined },
                      `${bytes(row.limit)}, ${share(row.live, row.limit)} used`,
                    ),
            },
          ]
        : []),
    ],
    'Proxies and their children',
  );
  return {
    root: table.root,
    show(rows) {
      most = rows.reduce((a, row) => Math.max(a, row.live), 0);
      const below = new Map<number, NodeRow[]>();
      for (const row of rows) {
        const parent = tables.parent(row.node);
        below.set(parent, [...(below.get(parent) ?? []), row]);
      }
      const ordered: NodeRow[] = [];
      const visit = (parent: number) => {
        for (const row of (below.get(parent) ?? []).sort((a, b) => b.live - a.live)) {
          ordered.push(row);
          visit(row.node);
        }
      };
      visit(-1);
      table.show(ordered);
    },
  };
}

function resident(snapshot: Snapshot): HTMLElement {
  const { rss } = snapshot;
  if (!rss) return h('p', { class: 'quiet' }, snapshot.rss_why);
  return h('div', { class: 'stack' }, strip('RSS', rssParts(rss), rss.rss), allocators(rss));
}

function rssParts(rss: RSS): Part[] {
  return [
    { name: 'allocators', bytes: rss.tracked, colour: 'c0' },
    { name: 'Go heap', bytes: rss.go_heap, colour: 'c4' },
    { name: 'Go runtime', bytes: rss.go_other, colour: 'c2' },
    { name: 'files', bytes: rss.files, colour: 'other' },
    { name: 'unattributed', bytes: rss.unattributed, colour: 'c1' },
  ];
}

function allocators(rss: RSS): HTMLElement {
  const table = new Table<NonNullable<RSS['allocators']>[number]>(
    [
      { name: 'Allocator', cell: (row) => legible(row.name) || 'Proxy' },
      { name: 'Live', number: true, cell: (row) => bytes(row.live) },
      { name: 'Slack', number: true, cell: (row) => bytes(row.slack) },
      { name: 'Reserved', number: true, cell: (row) => bytes(row.reserved) },
      { name: 'Resident', number: true, cell: (row) => `${bytes(row.resident)}${row.assumed ? ', assumed' : ''}` },
      { name: 'Resident beyond live', number: true, cell: (row) => bytes(Math.max(0, row.resident - row.live)) },
    ],
    'What of it each allocator has in memory',
  );
  table.show(rss.allocators ?? []);
  return table.root;
}
