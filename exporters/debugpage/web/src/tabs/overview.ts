// The overview: what grew, who holds it, how it lies; then the figures, by child, and where the memory of the process is.

import { api } from '../api';
import { isLive, isProcess, timeOf, type Context, type View } from '../context';
import { h, replace, type Child } from '../dom';
import { bytes, change, clock, coarse, count, duration, plural, rate, share } from '../format';
import { MapModel, spanNoun } from '../mapmodel';
import { card, meter, sentence, spark, strip, swatch, Table, type Part } from '../parts';
import { Stacked } from '../stacked';
import { areasOf, loadTimeline, timesOf } from '../timelines';
import type { Known, Leaks, MemoryMap, RSS, Snapshot, Stats, Tab } from '../types';

interface NodeRow { node: number; live: number; blocks: number; peak: number; allocated: number; failures: number; limit: number }

export function overview(context: Context): View {
  const answers = h('div', { class: 'answers' });
  const figures = h('div', null);
  const plot = new Stacked(200, 'Live bytes over time, by child.');
  const plotLegend = h('ul', { class: 'legend' });
  const memory = h('div', null);
  const nodes = nodeTable(context);
  const root = h('div', { class: 'stack' }, answers, h('section', { class: 'card', 'aria-label': 'The figures' }, figures),
    context.page.tabs['timeline'] === '' ? card('Live memory by child', link(context, 'timeline', 'Select a span of time'), plot.root, plotLegend) : null,
    card('By child', h('span', { class: 'quiet' }, 'each with what its own children have'), nodes.root),
    card('Where the memory of the process is', h('span', { class: 'quiet' }, 'RSS, as the kernel counts it'), memory));
  const due = new Map<Tab, number>();
  let last: Snapshot | null = null;
  let leaks: Leaks | null = null, map: MemoryMap | null = null;

  const drawPlot = async () => {
    if (context.page.tabs['timeline'] !== '') return;
    const timeline = await loadTimeline(context, 'child');
    const areas = areasOf(context, timeline, 8);
    plot.show(timesOf(context, timeline), areas, timeline.total, context.marks.map((mark) => ({ at: timeOf(context, mark.atUS), name: mark.name })));
    replace(plotLegend, areas.map((area) => h('li', null, swatch(area.colour), area.name)));
  };

  return {
    root,
    async refresh() {
      const snapshot = (last = await api.snapshot());
      await context.tables.need(snapshot.known);
      const show = () => replace(answers, grew(context, leaks, snapshot), holds(context, snapshot), lies(context, map, snapshot));
      show();
      replace(figures, figureList(snapshot));
      nodes.show(nodeRows(snapshot));
      replace(memory, resident(snapshot));
      await drawPlot();
      await Promise.all([
        later(context, due, 'leaks', api.leaks, (answer) => {
          leaks = answer;
          show();
        }),
        later(context, due, 'map', api.map, (answer) => {
          map = answer;
          show();
        }),
      ]);
    },
    tick() {
      if (last) replace(figures, figureList((last = upToDate(context, last))));
      void drawPlot();
    },
    redraw: () => plot.redraw(),
  };
}

// later gets what another tab shows, if there is data for it, and less often if that takes long.
async function later<T extends { known: Known }>(context: Context, due: Map<Tab, number>, tab: Tab, get: () => Promise<T>, show: (answer: T) => void): Promise<void> {
  const began = performance.now();
  if (context.page.tabs[tab] !== '' || began < (due.get(tab) ?? 0)) return;
  const answer = await get();
  await context.tables.need(answer.known);
  show(answer);
  due.set(tab, performance.now() + 50 * (performance.now() - began));
}

function link(context: Context, tab: Tab, name: string, parameters: Record<string, string | number> = {}): HTMLElement {
  return h('button', { type: 'button', class: 'link', on: { click: () => context.state.go(tab, parameters) } }, name);
}

function answer(question: string, alarm: boolean, lead: Child, ...more: Child[]): HTMLElement {
  return h('section', { class: `card answer${alarm ? ' alarm' : ''}` }, h('h2', null, question), h('p', { class: 'lead' }, lead), more);
}

// unknown says what to switch on for an answer, or that it is on its way.
function unknown(context: Context, question: string, tab: Tab): HTMLElement {
  const why = context.page.tabs[tab] ?? '';
  return answer(question, false, why === '' ? 'Looking …' : 'Not known', h('p', null, sentence(why)));
}

function since(context: Context, us: number): string {
  return isProcess(context) ? `since ${clock(timeOf(context, us))}` : us <= context.page.first_us ? 'since the beginning' : `since ${duration(us - context.page.first_us)} after the beginning`;
}

function grew(context: Context, leaks: Leaks | null, snapshot: Snapshot): HTMLElement {
  const question = 'What grew?';
  if (!leaks) return childGrowth(context, question) ?? unknown(context, question, 'leaks');
  const rows = leaks.site.map((site, i) => ({
    site, grown: (leaks.added[i] ?? 0) - (leaks.freed[i] ?? 0), live: leaks.live[i] ?? 0, why: leaks.why[i] ?? '', suspicion: leaks.suspicion[i] ?? 0,
  })).filter((row) => row.grown > 0).sort((a, b) => b.grown - a.grown);
  const [first] = rows;
  const when = since(context, leaks.since_us);
  if (!first) return childGrowth(context, question) ?? answer(question, false, 'Nothing', h('p', null, `No site holds more than it did, ${when}.`), h('p', { class: 'more' }, link(context, 'leaks', 'All sites, by suspicion')));
  return answer(question, first.suspicion >= 2, [h('span', { class: 'code' }, context.tables.site(first.site)), ' ', h('span', { class: 'nowrap' }, change(first.grown))],
    h('p', { class: 'quiet' }, [context.tables.place(first.site), `${when}, it now holds ${bytes(first.live)} of ${bytes(snapshot.total.live)}`].filter(Boolean).join(' · ')),
    first.why ? h('p', null, first.why) : null,
    rows.length > 1 ? list(context, rows.slice(1, 4).map((row) => ({ site: row.site, figure: change(row.grown), part: row.grown, whole: first.grown }))) : null,
    h('p', { class: 'more' }, link(context, 'leaks', 'Is it a leak?'), asOf(context, leaks.at_us, snapshot)));
}

// childGrowth is what the counters say has grown, where no site is known that has.
function childGrowth(context: Context, question: string): HTMLElement | null {
  const { history, page } = context;
  const groups = history.timeline('child', context.tables).groups ?? [];
  const grown = groups.map((group) => ({ name: group.name, bytes: (group.values.at(-1) ?? 0) - (group.values[0] ?? 0) })).sort((a, b) => b.bytes - a.bytes);
  const [first] = grown;
  if (!first || first.bytes <= 0) return null;
  const why = page.tabs['leaks'] ?? '';
  return answer(question, false, [`${first.name} `, h('span', { class: 'nowrap' }, change(first.bytes))],
    h('p', { class: 'quiet' }, `since ${clock(timeOf(context, history.beginUS))}, when this page was opened`),
    h('p', null, why === '' ? 'Of the blocks that were sampled, there are no more than before.' : sentence(why)),
    h('p', { class: 'more' }, link(context, 'timeline', 'Live memory by child', { by: 'child' })));
}

function holds(context: Context, snapshot: Snapshot): HTMLElement {
  const question = 'Who holds it?';
  const { sites, total } = snapshot;
  const rows = sites.site.map((site, i) => ({ site, live: sites.live[i] ?? 0, blocks: sites.live_blocks[i] ?? 0, error: sites.live_error[i] ?? 0 })).filter((row) => row.live > 0);
  const [first] = rows;
  if (!first) {
    const nodes = nodeRows(snapshot).filter((row) => row.live > 0).sort((a, b) => b.live - a.live);
    const top = nodes.find((row) => context.tables.parent(row.node) >= 0) ?? nodes[0];
    if (!top) return answer(question, false, 'Nobody', h('p', null, 'No block is live.'));
    return answer(question, false, `${context.tables.name(top.node)} holds ${bytes(top.live)}`, h('p', null, sentence(context.page.tabs['flame'] ?? '')));
  }
  return answer(question, false, [h('span', { class: 'code' }, context.tables.site(first.site)), ' ', h('span', { class: 'nowrap' }, share(first.live, total.live))],
    h('p', { class: 'quiet' }, [context.tables.place(first.site), `${bytes(first.live)}${first.error > 0 ? ` ± ${coarse(first.error)}` : ''} in ${plural(first.blocks, 'block')}`].filter(Boolean).join(' · ')),
    list(context, rows.slice(1, 4).map((row) => ({ site: row.site, figure: bytes(row.live), part: row.live, whole: first.live }))),
    h('p', { class: 'more' }, link(context, 'flame', 'Flame graph of who called it')));
}

// list is the sites after the first one of an answer.
function list(context: Context, rows: { site: number; figure: string; part: number; whole: number }[]): HTMLElement {
  return h('table', null, h('caption', { class: 'hidden' }, 'The next ones'), h('thead', { class: 'hidden' }, h('tr', null, h('th', { scope: 'col' }, 'site'), h('th', { scope: 'col' }, 'bytes'))),
    h('tbody', null, rows.map((row) => h('tr', null,
      h('th', { scope: 'row' }, h('span', { class: 'code' }, context.tables.site(row.site)), h('span', { class: 'quiet' }, ` ${context.tables.place(row.site)}`), meter(row.part, row.whole)), h('td', { class: 'number' }, row.figure)))));
}

function lies(context: Context, map: MemoryMap | null, snapshot: Snapshot): HTMLElement {
  const question = 'How does it lie?';
  if (!map) return unknown(context, question, 'map');
  const model = new MapModel(map);
  const { groups } = model;
  const sum = (of: (group: (typeof groups)[number]) => number) => groups.reduce((all, group) => all + of(group), 0);
  const size = sum((group) => group.size), free = sum((group) => group.free + group.clean), clean = sum((group) => group.clean);
  if (size === 0) return answer(question, false, 'In no span', h('p', null, 'No Pool or Slab holds memory.'));
  const known = groups.some((group) => group.known);
  const parts: Part[] = [{ name: 'live', bytes: size - free, colour: 'map-live' }, { name: 'free', bytes: free - clean, colour: 'map-free' }, ...(known ? [{ name: 'clean', bytes: clean, colour: 'map-clean' }] : [])];
  const worst = groups[0];
  const idle = free - clean;
  const keeper = worst && model.keepers(worst)[0];
  return answer(question, idle > size / 4, known ? `${idle > 0 ? bytes(idle) : 'Nothing'} lies idle` : `${bytes(free)} free between blocks`,
    strip('Memory of Pools and Slabs', parts, size),
    !known ? h('p', null, `In ${plural(groups.reduce((sum, group) => sum + group.spans.length, 0), 'range')} of addresses. Whether what is free takes memory is not known of a recording.`) : worst && worst.free > 0 ? h('p', null, `Idle is what is free and still takes memory. ${bytes(worst.free)} of it is in ${plural(worst.spans.length, spanNoun(worst.allocator))} of ${worst.allocator.name} for ${worst.block > 0 ? `blocks of ${bytes(worst.block)}` : 'blocks of any size'}`,
      keeper ? [', kept by ', plural(keeper.blocks, 'live block'), ' of ', h('span', { class: 'code' }, context.tables.site(keeper.site)), '.'] : ', in none of which a block is live.') : null,
    h('p', { class: 'more' }, link(context, 'map', 'Map of every block'), asOf(context, map.at_us, snapshot)));
}

// asOf says when an answer was made that is older than the figures beside it.
function asOf(context: Context, us: number, snapshot: Snapshot): Child {
  return snapshot.at_us - us > 3e6 && isLive(context) ? h('span', { class: 'quiet' }, ` · as of ${clock(timeOf(context, us))}`) : null;
}

export function failures(stats: Pick<Stats, 'failed_allocations' | 'failed_reallocations' | 'failed_frees'>): number {
  return stats.failed_allocations + stats.failed_reallocations + stats.failed_frees;
}

// upToDate is a snapshot with what the last ticks say of its totals.
function upToDate(context: Context, snapshot: Snapshot): Snapshot {
  const { recent } = context.history;
  const first = recent[0], last = recent.at(-1);
  if (!first || !last || last.atUS <= Math.max(first.atUS, snapshot.at_us)) return snapshot;
  const seconds = (last.atUS - first.atUS) / 1e6;
  const rate = (of: keyof Stats) => (last.total[of] - first.total[of]) / seconds;
  return {
    ...snapshot, at_us: last.atUS, total: last.total, rate_us: last.atUS - first.atUS,
    allocated_per_second: rate('allocated'), freed_per_second: rate('freed'), allocations_per_second: rate('allocations'),
  };
}

function figureList(snapshot: Snapshot): HTMLElement {
  const { total } = snapshot;
  const failed = failures(total);
  const what = [[total.failed_allocations, 'allocations'], [total.failed_reallocations, 'reallocations'], [total.failed_frees, 'frees']] as const;
  const figure = (name: string, value: string, small: string, bad = false) => h('div', { class: 'figure' }, h('dt', null, name), h('dd', { class: bad ? 'bad' : undefined }, value, h('small', null, small)));
  return h('dl', { class: 'figures' },
    figure('Live', bytes(total.live), `in ${plural(total.live_blocks, 'block')}`),
    figure('Peak', bytes(total.peak), total.peak_bound > 0 ? `give or take ${bytes(total.peak_bound)}` : total.peak > 0 ? `now ${share(total.live, total.peak)} of it` : 'none yet'),
    snapshot.rate_us > 0 ? figure('Allocated', `${bytes(snapshot.allocated_per_second)}/s`, `${rate(snapshot.allocations_per_second)} blocks a second`) : figure('Allocated', bytes(total.allocated), `in ${plural(total.allocations, 'allocation')}`),
    snapshot.rate_us > 0 ? figure('Freed', `${bytes(snapshot.freed_per_second)}/s`, `${bytes(total.freed)} in all`) : figure('Freed', bytes(total.freed), `in ${plural(total.frees, 'free')}`),
    figure('Failures', count(failed), failed === 0 ? 'none' : what.filter(([n]) => n > 0).map(([n, name]) => `${count(n)} ${name}`).join(', '), failed > 0),
    snapshot.rss ? figure('RSS', bytes(snapshot.rss.rss), `${bytes(snapshot.rss.tracked)} of it by allocators`) : figure('Slack', bytes(total.slack), 'granted beyond what was asked for'));
}

function nodeRows(snapshot: Snapshot): NodeRow[] {
  const { nodes } = snapshot;
  return nodes.node.map((node, i) => ({
    node, live: nodes.live[i] ?? 0, blocks: nodes.live_blocks[i] ?? 0, peak: nodes.peak[i] ?? 0, allocated: nodes.allocated[i] ?? 0, limit: nodes.limit[i] ?? -1,
    failures: (nodes.failed_allocations[i] ?? 0) + (nodes.failed_reallocations[i] ?? 0) + (nodes.failed_frees[i] ?? 0),
  }));
}

// nodeTable has the children below their parents, the one that holds most first.
function nodeTable(context: Context): { root: HTMLElement; show(rows: NodeRow[]): void } {
  const { tables, history } = context;
  let most = 0;
  const live = isLive(context);
  const table = new Table<NodeRow>([
    { name: 'Name', by: (row) => tables.path(row.node), cell: (row) => h('span', { style: { 'padding-left': `${1.1 * tables.depth(row.node)}rem` } }, tables.name(row.node)) },
    { name: 'Live', number: true, by: (row) => row.live, cell: (row) => bytes(row.live) },
    { name: 'Share', bar: true, cell: (row) => meter(row.live, most) },
    ...(live ? [{ name: 'Last minutes', cell: (row: NodeRow) => spark(history.nodeValues(row.node, 300)) }] : []),
    { name: 'Blocks', number: true, by: (row) => row.blocks, cell: (row) => count(row.blocks) },
    { name: 'Peak', number: true, by: (row) => row.peak, cell: (row) => bytes(row.peak) },
    live ? { name: 'Allocates', number: true, by: (row) => history.nodeRate(row.node, 10e6), cell: (row) => `${bytes(history.nodeRate(row.node, 10e6))}/s` }
      : { name: 'Allocated', number: true, by: (row) => row.allocated, cell: (row) => bytes(row.allocated) },
    { name: 'Failures', number: true, by: (row) => row.failures, cell: (row) => h('span', { class: row.failures > 0 ? 'bad' : 'quiet' }, count(row.failures)) },
    { name: 'Limit', number: true, by: (row) => row.limit, cell: (row) => (row.limit < 0 ? h('span', { class: 'quiet' }, 'none') : `${bytes(row.limit)}, ${share(row.live, row.limit)} used`) },
  ], 'Proxies and their children');
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
    { name: 'allocators', bytes: rss.tracked, colour: 'c0' }, { name: 'Go heap', bytes: rss.go_heap, colour: 'c4' }, { name: 'Go runtime', bytes: rss.go_other, colour: 'c2' },
    { name: 'files', bytes: rss.files, colour: 'other' }, { name: 'unattributed', bytes: rss.unattributed, colour: 'c1' },
  ];
}

function allocators(rss: RSS): HTMLElement {
  const table = new Table<NonNullable<RSS['allocators']>[number]>([
    { name: 'Allocator', cell: (row) => row.name || 'Proxy' },
    { name: 'Live', number: true, cell: (row) => bytes(row.live) },
    { name: 'Slack', number: true, cell: (row) => bytes(row.slack) },
    { name: 'Reserved', number: true, cell: (row) => bytes(row.reserved) },
    { name: 'Resident', number: true, cell: (row) => `${bytes(row.resident)}${row.assumed ? ', assumed' : ''}` },
    { name: 'Resident beyond live', number: true, cell: (row) => bytes(Math.max(0, row.resident - row.live)) },
  ], 'What of it each allocator has in memory');
  table.show(rss.allocators ?? []);
  return table.root;
}

