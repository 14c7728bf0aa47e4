// The timeline: what was live when, stacked by site, child or region; and of a span of it, what was allocated there and is still live.

import { api, isSaved } from '../api';
import { isLive, isProcess, timeOf, type Context, type View } from '../context';
import { announce, h, replace, text } from '../dom';
import { bytes, change, clock, count, digitsOf, duration, plural, share } from '../format';
import { calls, callsColumn, card, meter, segments, siteName, swatch, Table } from '../parts';
import { Stacked, type Selection } from '../stacked';
import { areasOf, groupKey, groupName, loadTimeline, timesOf } from '../timelines';
import type { Between, By, Timeline } from '../types';

interface GroupRow {
  name: string;
  site: number;
  colour: string;
  rest: number;
  now: number;
  peak: number;
  grown: number;
}
interface SpanRow {
  site: number;
  live: number;
  blocks: number;
  allocated: number | null;
}

export function timelineTab(context: Context): View {
  const { state, page } = context;
  const choices: { id: By; name: string; off?: string | undefined; title?: string }[] = [
    { id: 'site', name: 'Site', off: page.rate === 0 && page.mode === 'live' ? 'Switch on a heap profile to see sites' : undefined },
    { id: 'child', name: 'Child' },
    isProcess(context)
      ? { id: 'region', name: 'Owner', title: 'Whose the blocks are, as Owner of heapprofile.Options says: or else the child' }
      : { id: 'region', name: 'Region' },
  ];
  const asked = state.get('by') as By | null;
  let by: By = choices.some((choice) => choice.id === asked) ? (asked as By) : choices[0]?.off ? 'child' : 'site';
  let selection: Selection | null = null;
  let timeline: Timeline | null = null;
  let total = 0; // now

  const plot = new Stacked(360, 'Live bytes over time.', (chosen) => void select(chosen));
  const groups = new Table<GroupRow>(
    [
      {
        name: 'Name',
        by: (row) => row.name,
        cell: (row) => (row.site >= 0 ? siteName(context, row.site, row.colour) : h('span', null, swatch(row.colour), row.name)),
      },
      { name: isLive(context) ? 'Now' : 'At the end', number: true, by: (row) => row.now, cell: (row) => bytes(row.now) },
      { name: 'Peak', number: true, by: (row) => row.peak, cell: (row) => bytes(row.peak) },
      {
        name: 'Change',
        number: true,
        by: (row) => row.grown,
        cell: (row) => h('span', { class: row.grown > 0 ? undefined : 'quiet' }, change(row.grown)),
      },
      {
        name: isLive(context) ? 'Share now' : 'Share then',
        bar: true,
        by: (row) => row.now,
        cell: (row) => h('span', null, share(row.now, total), meter(row.now, total, row.colour)),
      },
    ],
    'What is stacked, the largest peak first',
    12,
  );
  const spanTable = new Table<SpanRow>(
    [
      { name: 'Site', by: (row) => context.tables.label(row.site), cell: (row) => siteName(context, row.site) },
      { name: 'Still live', number: true, by: (row) => row.live, cell: (row) => bytes(row.live) },
      { name: 'Blocks', number: true, by: (row) => row.blocks, cell: (row) => count(row.blocks) },
      {
        name: 'Allocated there',
        number: true,
        by: (row) => row.allocated ?? 0,
        cell: (row) =>
          row.allocated === null ? h('span', { class: 'quiet' }, 'not known') : `${isLive(context) ? 'about ' : ''}${bytes(row.allocated)}`,
      },
      {
        name: 'Kept',
        bar: true,
        cell: (row) =>
          row.allocated === null
            ? ''
            : h('span', null, share(Math.min(row.live, row.allocated), row.allocated), meter(row.live, row.allocated)),
      },
      callsColumn(context, (site) => replace(stack, h('h3', null, 'Calls'), calls(context, site))),
    ],
    'What was allocated in the span, by site',
    12,
  );
  const stack = h('div', { class: 'detail' });
  const spanTitle = h('p', null);
  const from = h('input', { type: 'number', step: 'any' }),
    to = h('input', { type: 'number', step: 'any' });
  const timeDigits = () => (timeline && timeline.step_us < 1000 ? 6 : digitsOf((timeline?.step_us ?? 1e6) / 1000)); // of seconds
  const began = () => timeOf(context, timeline?.begin_us ?? page.first_us);
  const typed = () => {
    const a = Number.parseFloat(from.value),
      b = Number.parseFloat(to.value);
    if (Number.isFinite(a) && Number.isFinite(b) && a < b) void select({ from: began() + a * 1000, to: began() + b * 1000 });
  };
  from.addEventListener('change', typed);
  to.addEventListener('change', typed);
  const span = card(
    'In the span that is selected',
    h('button', { type: 'button', on: { click: () => void select(null) } }, 'End the selection'),
    spanTitle,
    h('div', { class: 'stack' }, spanTable.root, stack),
  );
  span.hidden = true;

  const draw = async () => {
    const wanted = by,
      loaded = await loadTimeline(context, wanted);
    if (by !== wanted) return; // another choice was made meanwhile
    timeline = loaded;
    const areas = areasOf(context, timeline, 8);
    plot.show(
      timesOf(context, timeline),
      areas,
      timeline.total,
      context.marks.map((mark) => ({ at: timeOf(context, mark.atUS), name: mark.name })),
    );
    total = timeline.total.at(-1) ?? 0;
    groups.show(
      rows(
        context,
        timeline,
        areas.map((area) => [area.key, area.colour]),
      ),
    );
  };

  async function select(chosen: Selection | null): Promise<void> {
    selection = chosen;
    plot.select(chosen);
    span.hidden = chosen === null;
    const us = (ms: number) => (ms - page.began_ms) * 1000;
    state.set({ from: chosen && Math.round(us(chosen.from)), to: chosen && Math.round(us(chosen.to)) });
    const seconds = (ms: number) => ((ms - began()) / 1000).toFixed(Math.max(1, timeDigits()));
    from.value = chosen ? seconds(chosen.from) : '';
    to.value = chosen ? seconds(chosen.to) : '';
    replace(stack);
    if (!chosen) return;
    await showSpan(us(chosen.from), us(chosen.to));
    if (selection === chosen) announce(spanTitle.textContent ?? '');
  }

  async function showSpan(fromUS: number, toUS: number): Promise<void> {
    const wanted = selection;
    const between = await betweenOf(context, fromUS, toUS).catch((reason: Error) => reason);
    if (selection !== wanted) return; // another span was selected meanwhile
    if (between instanceof Error) return text(spanTitle, between.message);
    const list: SpanRow[] = between.site.map((site, i) => ({
      site,
      live: between.live[i] ?? 0,
      blocks: between.live_blocks[i] ?? 0,
      allocated:
        between.allocated?.[i] ??
        (isLive(context) ? atLeast(between.live[i] ?? 0, context.history.siteAllocated(site, fromUS, toUS)) : null),
    }));
    const live = list.reduce((sum, row) => sum + row.live, 0),
      blocks = list.reduce((sum, row) => sum + row.blocks, 0);
    const when = isLive(context) ? 'now' : isSaved ? 'at the end of all' : 'at its end',
      digits = Math.max(1, digitsOf((toUS - fromUS) / 1000));
    const sentence = `From ${clock(timeOf(context, fromUS), digits)} to ${clock(timeOf(context, toUS), digits)}, ${duration(toUS - fromUS)}: ${bytes(live)} in ${plural(blocks, 'block')} allocated there ${Math.round(blocks) === 1 ? 'is' : 'are'} live ${when}.`;
    text(spanTitle, sentence);
    spanTable.show(list.filter((row) => row.live > 0 || (row.allocated ?? 0) > 0));
  }

  const help = h(
    'p',
    { class: 'keys' },
    'Drag to select a span of time. By keys: ',
    h('kbd', null, '←'),
    ' ',
    h('kbd', null, '→'),
    ' read, with ',
    h('kbd', null, 'Shift'),
    ' select, ',
    h('kbd', null, 'Esc'),
    ' ends.',
  );
  const inputs = h(
    'div',
    { class: 'bar-of-controls' },
    help,
    h('label', null, h('span', null, 'Or from'), from),
    h('label', null, h('span', null, 'to'), to, h('span', null, 'seconds after its beginning')),
  );
  const root = h(
    'div',
    { class: 'stack' },
    h(
      'section',
      { class: 'card', 'aria-label': 'Live memory over time' },
      h(
        'div',
        { class: 'bar-of-controls' },
        segments('Stacked by', choices, by, (chosen) => {
          by = chosen;
          state.set({ by });
          void draw().catch(context.complain);
        }),
      ),
      plot.root,
      inputs,
    ),
    span,
    card('By name', null, groups.root),
  );

  let first = true;
  return {
    root,
    async refresh() {
      await draw();
      const a = state.number('from'),
        b = state.number('to');
      if (first && a !== null && b !== null) await select({ from: timeOf(context, a), to: timeOf(context, b) });
      else if (selection) await showSpan((selection.from - page.began_ms) * 1000, (selection.to - page.began_ms) * 1000);
      first = false;
    },
    close: () => plot.close(),
    tick: () => void draw().catch(context.complain),
    redraw: () => plot.redraw(),
  };
}

function rows(context: Context, timeline: Timeline, colours: [string, string][]): GroupRow[] {
  const of = new Map(colours);
  return (timeline.groups ?? [])
    .filter((group) => group.peak > 0)
    .map((group) => {
      const now = group.values.at(-1) ?? 0;
      return {
        name: groupName(context, group),
        site: group.site,
        colour: of.get(groupKey(group)) ?? 'other',
        rest: group.rest,
        now,
        peak: group.peak,
        grown: now - (group.values[0] ?? 0),
      };
    });
}

function atLeast(least: number, value: number | null): number | null {
  return value === null ? null : Math.max(least, value);
}

// betweenOf is what was allocated in a span, which a saved page finds in the blocks that it has.
async function betweenOf(context: Context, fromUS: number, toUS: number): Promise<Between> {
  if (!isSaved) {
    const answer = await api.between(fromUS, toUS);
    await context.tables.need(answer.known);
    return answer;
  }
  const blocks = await api.blocks(0);
  const bySite = new Map<number, { live: number; blocks: number }>();
  blocks.allocated_us.forEach((at, i) => {
    if (at < fromUS || at > toUS) return;
    const site = blocks.site[i] ?? -1,
      weight = blocks.weight?.[i] ?? 1;
    const sum = bySite.get(site) ?? { live: 0, blocks: 0 };
    sum.live += weight * (blocks.size[i] ?? 0);
    sum.blocks += weight;
    bySite.set(site, sum);
  });
  const list = [...bySite].sort((a, b) => b[1].live - a[1].live);
  return {
    known: blocks.known,
    from_us: fromUS,
    to_us: toUS,
    at_us: blocks.at_us,
    site: list.map(([site]) => site),
    live: list.map(([, sum]) => Math.round(sum.live)),
    live_blocks: list.map(([, sum]) => Math.round(sum.blocks)),
    allocated: null,
    allocated_blocks: null,
  };
}
