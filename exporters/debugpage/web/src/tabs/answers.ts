// The three answers of the overview: what grew, who holds it, how it lies.

import { isLive, isProcess, timeOf, type Context } from '../context';
import { h, type Child } from '../dom';
import { bytes, change, clock, coarse, duration, legible, plural, share } from '../format';
import { MapModel, spanNoun } from '../mapmodel';
import { meter, sentence, strip, type Part } from '../parts';
import type { Leaks, MemoryMap, Snapshot, Tab } from '../types';

export function link(context: Context, tab: Tab, name: string, parameters: Record<string, string | number> = {}): HTMLElement {
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
  return isProcess(context)
    ? `since ${clock(timeOf(context, us))}`
    : us <= context.page.first_us
      ? 'since the beginning'
      : `since ${duration(us - context.page.first_us)} after the beginning`;
}

export function grew(context: Context, leaks: Leaks | null, snapshot: Snapshot): HTMLElement {
  const question = 'What grew?';
  if (!leaks) return childGrowth(context, question) ?? unknown(context, question, 'leaks');
  const rows = leaks.site
    .map((site, i) => ({
      site,
      grown: (leaks.added[i] ?? 0) - (leaks.freed[i] ?? 0),
      live: leaks.live[i] ?? 0,
      why: leaks.why[i] ?? '',
      suspicion: leaks.suspicion[i] ?? 0,
      chance: (leaks.added[i] ?? 0) - (leaks.freed[i] ?? 0) <= (leaks.noise?.[i] ?? 0),
    }))
    .filter((row) => row.grown > 0)
    .sort((a, b) => Number(a.chance) - Number(b.chance) || b.grown - a.grown);
  const [first] = rows;
  const when = since(context, leaks.since_us);
  if (!first)
    return (
      childGrowth(context, question) ??
      answer(
        question,
        false,
        'Nothing',
        h('p', null, `No site holds more than it did, ${when}.`),
        h('p', { class: 'more' }, link(context, 'leaks', 'All sites, by suspicion')),
      )
    );
  return answer(
    question,
    first.suspicion >= 2,
    [h('span', { class: 'code' }, context.tables.site(first.site)), ' ', h('span', { class: 'nowrap' }, change(first.grown))],
    h(
      'p',
      { class: 'quiet' },
      [...context.tables.details(first.site), `${when}, it now holds ${bytes(first.live)} of ${bytes(snapshot.total.live)}`]
        .filter(Boolean)
        .join(' · '),
    ),
    first.why ? h('p', null, first.why) : first.chance ? h('p', null, 'It goes up and down, and this may be chance.') : null,
    list(
      context,
      rows
        .slice(1, 4)
        .map((row) => ({ site: row.site, figure: change(row.grown), part: row.grown, note: row.chance ? 'may be chance' : '' })),
      first.grown,
    ),
    h('p', { class: 'more' }, link(context, 'leaks', 'Is it a leak?'), asOf(context, leaks.at_us, snapshot)),
  );
}

// childGrowth is what the counters say has grown, where no site is known that has.
function childGrowth(context: Context, question: string): HTMLElement | null {
  const { history, page } = context;
  const groups = history.timeline('child', context.tables).groups ?? [];
  const grown = groups
    .map((group) => ({ name: group.name, bytes: (group.values.at(-1) ?? 0) - (group.values[0] ?? 0) }))
    .sort((a, b) => b.bytes - a.bytes);
  const [first] = grown;
  if (!first || first.bytes <= 0) return null;
  const why = page.tabs['leaks'] ?? '';
  return answer(
    question,
    false,
    [`${legible(first.name)} `, h('span', { class: 'nowrap' }, change(first.bytes))],
    h('p', { class: 'quiet' }, `since ${clock(timeOf(context, history.beginUS))}, when this page was opened`),
    h('p', null, why === '' ? 'Of the blocks that were sampled, there are no more than before.' : sentence(why)),
    h('p', { class: 'more' }, link(context, 'timeline', 'Live memory by child', { by: 'child' })),
  );
}

export function holds(context: Context, snapshot: Snapshot): HTMLElement {
  const question = 'Who holds it?';
  const { sites, total } = snapshot;
  const rows = sites.site
    .map((site, i) => ({ site, live: sites.live[i] ?? 0, blocks: sites.live_blocks[i] ?? 0, error: sites.live_error[i] ?? 0 }))
    .filter((row) => row.live > 0);
  const [first] = rows;
  if (!first) {
    const nodes = snapshot.nodes.node
      .map((node, i) => ({ node, live: snapshot.nodes.live[i] ?? 0 }))
      .filter((row) => row.live > 0)
      .sort((a, b) => b.live - a.live);
    const top = nodes.find((row) => context.tables.parent(row.node) >= 0) ?? nodes[0];
    if (!top) return answer(question, false, 'Nobody', h('p', null, 'No block is live.'));
    return answer(
      question,
      false,
      `${legible(context.tables.name(top.node))} holds ${bytes(top.live)}`,
      h('p', null, sentence(context.page.tabs['flame'] ?? '')),
    );
  }
  return answer(
    question,
    false,
    [h('span', { class: 'code' }, context.tables.site(first.site)), ' ', h('span', { class: 'nowrap' }, share(first.live, total.live))],
    h(
      'p',
      { class: 'quiet' },
      [
        ...context.tables.details(first.site),
        `${bytes(first.live)}${first.error > 0 ? ` ± ${coarse(first.error)}` : ''} in ${plural(first.blocks, 'block')}`,
      ]
        .filter(Boolean)
        .join(' · '),
    ),
    list(
      context,
      rows.slice(1, 4).map((row) => ({ site: row.site, figure: bytes(row.live), part: row.live })),
      first.live,
    ),
    h('p', { class: 'more' }, link(context, 'flame', 'Flame graph of who called it')),
  );
}

// list is the sites after the first one of an answer, with bars of which the longest is that of the most, or of what the first one has.
function list(context: Context, rows: { site: number; figure: string; part: number; note?: string }[], first: number): HTMLElement | null {
  if (rows.length === 0) return null;
  const most = rows.reduce((most, row) => Math.max(most, row.part), first);
  return h(
    'table',
    null,
    h('caption', { class: 'hidden' }, 'The next ones'),
    h('thead', { class: 'hidden' }, h('tr', null, h('th', { scope: 'col' }, 'site'), h('th', { scope: 'col' }, 'bytes'))),
    h(
      'tbody',
      null,
      rows.map((row) =>
        h(
          'tr',
          null,
          h(
            'th',
            { scope: 'row' },
            h('span', { class: 'code' }, context.tables.site(row.site)),
            h('span', { class: 'quiet' }, ` ${[...context.tables.details(row.site), row.note].filter(Boolean).join(' · ')}`),
            meter(row.part, most),
          ),
          h('td', { class: 'number' }, row.figure),
        ),
      ),
    ),
  );
}

export function lies(context: Context, map: MemoryMap | null, snapshot: Snapshot): HTMLElement {
  const question = 'How does it lie?';
  if (!map) return unknown(context, question, 'map');
  const model = new MapModel(map);
  const { groups } = model;
  const sum = (of: (group: (typeof groups)[number]) => number) => groups.reduce((all, group) => all + of(group), 0);
  const { size } = model,
    free = sum((group) => group.free + group.clean),
    clean = sum((group) => group.clean);
  if (size === 0) return answer(question, false, 'In no span', h('p', null, 'No Pool or Slab holds memory.'));
  const known = groups.every((group) => group.known);
  const parts: Part[] = [
    { name: 'live', bytes: size - free, colour: 'map-live' },
    { name: 'free', bytes: free - clean, colour: 'map-free' },
    ...(known ? [{ name: 'clean', bytes: clean, colour: 'map-clean' }] : []),
  ];
  const worst = groups[0];
  const idle = free - clean;
  const keeper = worst && model.keepers(worst)[0];
  return answer(
    question,
    idle > size / 4,
    known ? `${idle > 0 ? bytes(idle) : 'Nothing'} lies idle` : `${bytes(free)} free between blocks`,
    strip('Memory of Pools and Slabs', parts, size),
    !known
      ? h(
          'p',
          null,
          `In ${plural(
            groups.reduce((sum, group) => sum + group.spans.length, 0),
            worst ? spanNoun(worst.allocator) : 'span',
          )}. How much of what is free takes memory is not known.`,
        )
      : worst && worst.free > 0
        ? h(
            'p',
            null,
            `Idle is what is free and still takes memory. ${bytes(worst.free)} of it is in ${plural(worst.spans.length, spanNoun(worst.allocator))} of ${worst.allocator.name} for ${worst.block > 0 ? `blocks of ${bytes(worst.block)}` : 'blocks of any size'}`,
            keeper
              ? [
                  ', kept by ',
                  plural(keeper.blocks, 'live block'),
                  ' of ',
                  h('span', { class: 'code' }, context.tables.site(keeper.site)),
                  '.',
                ]
              : ', in none of which a block is live.',
          )
        : null,
    h('p', { class: 'more' }, link(context, 'map', 'Map of every block'), asOf(context, map.at_us, snapshot)),
  );
}

// asOf says when an answer was made that is older than the figures beside it.
function asOf(context: Context, us: number, snapshot: Snapshot): Child {
  return snapshot.at_us - us > 3e6 && isLive(context) ? h('span', { class: 'quiet' }, ` · as of ${clock(timeOf(context, us))}`) : null;
}
