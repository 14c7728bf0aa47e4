// The flame graph: who called what allocates, by what is live, was allocated, was live at the peak, is pinned, or by how long it lived; and
// by what has changed between two marks.

import { api, isSaved } from '../api';
import { isLive, timeOf, type Context, type View } from '../context';
import { h, replace } from '../dom';
import { bytes, change, clock, coarse, count, duration, plural, share } from '../format';
import { FlameCanvas } from '../flamecanvas';
import { flameTree, matching, pathOf, type Amount, type Flame } from '../flametree';
import { calls, callsColumn, card, meter, segments, siteName, Table } from '../parts';
import { loadTimeline } from '../timelines';
import { columns } from '../sitehistory';
import type { Measure, SiteColumns, Snapshot, Timeline } from '../types';

const measures: { id: Measure; name: string; means: string }[] = [
  { id: 'live', name: 'Live', means: 'bytes that are live' },
  { id: 'allocated', name: 'Allocated', means: 'bytes that were allocated in all, freed or not' },
  { id: 'peak', name: 'Peak', means: 'bytes that were live when most was live of all' },
  { id: 'lifetime', name: 'Lifetime', means: 'bytes that were freed times how long they had lived' },
  { id: 'pinned', name: 'Pinned', means: 'free bytes of Pool and Slab that blocks keep from other sizes' },
];

interface SiteRow {
  site: number;
  value: number;
  blocks: number | null; // that are live; null if that is not known of the moment
  error: number; // of a value that is an estimate
}

export function flameTab(context: Context): View {
  const { state, page } = context;
  const has = new Set(page.flame ?? ['live']);
  let measure = measures.find(({ id }) => id === state.get('by') && has.has(id))?.id ?? 'live';
  let snapshot: Snapshot | null = null;
  let tree: Flame | null = null;
  let comparing = false;
  let drawing = 0; // the last one that was begun
  const difference = () => comparing;

  const reading = h('div', { class: 'reading' });
  const found = h('span', { class: 'quiet', 'aria-live': 'polite' });
  const describe = (at: Flame) => figure(measure, at, difference());
  const canvas = new FlameCanvas({
    label: 'Flame graph.',
    describe,
    onPoint: (at) => read(at),
    onZoom: (at) => state.set({ zoom: at.parent ? pathOf(at).join('\n') : null }),
  });
  const table = new Table<SiteRow>(
    [
      { name: 'Site', by: (row) => context.tables.label(row.site), cell: (row) => siteName(context, row.site) },
      {
        name: 'Value',
        number: true,
        by: (row) => row.value,
        cell: (row) => `${amount(measure, row.value, difference())}${row.error > 0 ? ` ± ${coarse(row.error)}` : ''}`,
      },
      {
        name: 'Share',
        bar: true,
        cell: (row) =>
          h(
            'span',
            null,
            share(Math.abs(row.value), tree?.value ?? 0),
            meter(Math.abs(row.value), tree?.value ?? 0, difference() ? (row.value >= 0 ? 'grow' : 'shrink') : 'c0'),
          ),
      },
      {
        name: 'Live blocks',
        number: true,
        by: (row) => row.blocks ?? 0,
        cell: (row) => (row.blocks === null ? h('span', { class: 'quiet' }, 'not known') : count(row.blocks)),
      },
      callsColumn(context, showCalls),
    ],
    '',
    15,
  );
  const stack = h('div', { class: 'detail', tabindex: '-1' });

  function read(at: Flame | null): void {
    const shown = at ?? canvas.zoomed ?? tree;
    if (!shown || !tree) return replace(reading);
    const all = tree.value;
    const below = shown.children.length;
    replace(
      reading,
      h(
        'p',
        null,
        h('strong', { class: 'code' }, shown.parent ? shown.fn : `all of ${plural(countSites(tree), 'site')}`),
        shown.parent && h('span', { class: 'quiet' }, ` ${shown.place}`),
      ),
      h(
        'p',
        null,
        describe(shown),
        shown.parent ? `, ${share(shown.value, all)} of all` : '',
        shown.self > 0 ? ` · by itself ${amount(measure, shown.self, false)}` : '',
        below > 0 ? ` · calls ${plural(below, 'function')} that allocate` : '',
      ),
    );
  }

  function showCalls(site: number): void {
    replace(stack, h('h3', null, 'Calls'), calls(context, site));
    stack.focus();
  }

  function search(): void {
    const pattern = state.get('find') ?? '';
    if (!tree || pattern === '') {
      canvas.highlight(null);
      found.textContent = '';
      return;
    }
    const { frames, value } = matching(tree, patternOf(pattern));
    canvas.highlight(frames);
    found.textContent =
      frames.size === 0
        ? 'nothing fits'
        : `${plural(frames.size, 'frame')} with ${amount(measure, value, false)}, ${share(value, tree.value)}`;
  }

  async function draw(): Promise<void> {
    if (!snapshot) return;
    const mine = ++drawing;
    const [from, to] = marks.chosen();
    const before = await moment(context, from);
    const then = await moment(context, to);
    if (mine !== drawing) return; // something else was chosen meanwhile
    const after = then ?? (isLive(context) ? context.history.latest() : snapshot.sites);
    comparing = before !== null && (measure === 'live' || (measure === 'allocated' && !isSaved)); // nothing else is known of other moments
    const amounts = before && comparing ? differ(before, after, measure) : valuesOf(snapshot.sites, measure);
    tree = flameTree(context.tables, amounts);
    canvas.show(tree, difference());
    const zoom = state.get('zoom');
    if (zoom) canvas.zoom(zoom.split('\n'));
    search();
    read(null);
    const { site, live_blocks, live_error } = comparing && then ? then : snapshot.sites; // of the moment that is shown
    const row = new Map(site.map((site, i) => [site, i]));
    table.caption(`Sites by ${measures.find(({ id }) => id === measure)?.means ?? ''}${difference() ? ', and how that has changed' : ''}`);
    table.show(
      amounts
        .filter(({ value }) => value !== 0)
        .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
        .map(({ site, value }) => ({
          site,
          value,
          blocks: row.has(site) ? (live_blocks[row.get(site) as number] ?? null) : 0,
          error: measure === 'live' && !comparing ? (live_error[row.get(site) ?? -1] ?? 0) : 0,
        })),
    );
  }

  const find = h('input', {
    type: 'search',
    placeholder: 'function or package',
    'aria-label': 'Search functions',
    value: state.get('find') ?? '',
  });
  find.addEventListener('input', () => {
    state.set({ find: find.value });
    search();
  });
  const marks = markPicker(context, () => void draw().catch(context.complain));
  const root = h(
    'div',
    { class: 'stack' },
    h(
      'section',
      { class: 'card', 'aria-label': 'Flame graph' },
      h(
        'div',
        { class: 'bar-of-controls' },
        segments(
          'By',
          measures.map(({ id, name, means }) => ({ id, name, off: has.has(id) ? undefined : `not known: ${means}` })),
          measure,
          (chosen) => {
            measure = chosen;
            state.set({ by: chosen });
            void draw().catch(context.complain);
          },
        ),
        h('label', null, h('span', { class: 'quiet' }, 'Search'), find, found),
        marks.root,
      ),
      canvas.root,
      reading,
      h(
        'p',
        { class: 'keys' },
        'Click a frame to zoom in, and again to zoom out. By keys: arrows walk, ',
        h('kbd', null, 'Enter'),
        ' zooms in, ',
        h('kbd', null, 'Esc'),
        ' out.',
      ),
    ),
    card('By site', null, table.root, stack),
  );

  return {
    root,
    atUS: () => snapshot?.at_us ?? 0,
    async refresh() {
      snapshot = await api.snapshot();
      await context.tables.need(snapshot.known);
      marks.update();
      await draw();
    },
    redraw: () => canvas.redraw(),
  };
}

function countSites(tree: Flame): number {
  let sites = 0;
  const waiting = [tree];
  for (let at = waiting.pop(); at; at = waiting.pop()) {
    sites += at.sites.length;
    waiting.push(...at.children);
  }
  return sites;
}

// patternOf is a regular expression of what was typed, or that text itself where it is none.
function patternOf(typed: string): RegExp {
  try {
    return new RegExp(typed, 'i');
  } catch {
    return new RegExp(typed.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'i');
  }
}

function amount(measure: Measure, value: number, signed: boolean): string {
  if (measure === 'lifetime') return byteTime(value);
  return signed ? change(value) : bytes(value);
}

// byteTime writes byte-milliseconds: 1 GiB·s is what one GiB costs that lives for a second.
function byteTime(byteMS: number): string {
  return `${bytes(byteMS / 1000)}·s`;
}

function figure(measure: Measure, at: Flame, signed: boolean): string {
  return amount(measure, signed ? at.net : at.value, signed);
}

function valuesOf(sites: SiteColumns, measure: Measure): Amount[] {
  const column = measure === 'live' ? sites.live : measure === 'allocated' ? sites.allocated : sites[measure];
  return sites.site.map((site, i) => ({ site, value: column?.[i] ?? 0 }));
}

function differ(before: SiteColumns, after: SiteColumns, measure: Measure): Amount[] {
  const values = new Map(valuesOf(after, measure).map(({ site, value }) => [site, value]));
  for (const { site, value } of valuesOf(before, measure)) values.set(site, (values.get(site) ?? 0) - value);
  return [...values].map(([site, value]) => ({ site, value }));
}

// moment is the sites as they were at a mark, or at a time of a recording or of what this page has seen.
async function moment(context: Context, at: string | null): Promise<SiteColumns | null> {
  if (at === null) return null;
  const us = Number(at);
  const mark = context.marks.find((mark) => mark.atUS === us);
  if (mark) return mark.sites;
  if (isLive(context)) return us === context.history.beginUS ? context.history.opened() : null;
  if (isSaved) return savedAt(await loadTimeline(context, 'site'), us);
  const snapshot = await api.snapshot(us);
  await context.tables.need(snapshot.known);
  return snapshot.sites;
}

function savedAt(timeline: Timeline, us: number): SiteColumns {
  const step = Math.max(0, Math.min(timeline.total.length - 1, Math.round((us - timeline.begin_us) / timeline.step_us)));
  const groups = (timeline.groups ?? []).filter((group) => group.site >= 0);
  return columns(
    groups.map((group) => group.site),
    groups.map((group) => group.values[step] ?? 0),
    [],
  );
}

// markPicker chooses what is compared: marks of a live page, and quarters of a recording. What the URL says and cannot be chosen is not
// compared, such as a mark that was set before the page was loaded.
function markPicker(
  context: Context,
  changed: () => void,
): { root: HTMLElement; update(): void; chosen(): [from: string | null, to: string | null] } {
  const { state, page } = context;
  const from = h('select', { 'aria-label': 'Compared with' }),
    to = h('select', { 'aria-label': 'And' });
  const root = h(
    'div',
    { class: 'choice' },
    h('label', null, h('span', { class: 'quiet' }, 'Change since'), from),
    h('label', null, h('span', { class: 'quiet' }, 'until'), to),
  );
  const legend = h('span', { class: 'quiet' });
  root.append(legend);
  const options = (): [string, string][] => {
    const marks = context.marks.map((mark): [string, string] => [String(mark.atUS), `${mark.name}, ${clock(timeOf(context, mark.atUS))}`]);
    if (isLive(context))
      return [
        ...(context.history.steps > 1 ? [[String(context.history.beginUS), 'this page was opened'] as [string, string]] : []),
        ...marks,
      ];
    return [0, 0.25, 0.5, 0.75].map((part) => {
      const us = Math.round(page.first_us + part * (page.now_us - page.first_us));
      return [String(us), part === 0 ? 'the beginning' : `${duration(us - page.first_us)} after it`];
    });
  };
  let shown: string | null = null; // options
  const update = () => {
    const list = options();
    if (String(list) === shown) return; // one may be choosing
    shown = String(list);
    const fill = (select: HTMLSelectElement, name: string, chosen: string | null) => {
      replace(
        select,
        h('option', { value: '' }, name),
        list.map(([value, label]) => h('option', { value }, label)),
      );
      select.value = list.some(([value]) => value === chosen) ? (chosen as string) : '';
    };
    fill(from, 'nothing: show all', state.get('from'));
    fill(to, isLive(context) ? 'now' : 'the end', state.get('to'));
    from.disabled = list.length === 0;
    explain();
  };
  const explain = () => {
    to.disabled = from.value === '';
    replace(
      legend,
      from.value !== '' && [
        ' ',
        h('span', { class: 'swatch', style: { background: 'var(--grow)' } }),
        'grown ',
        h('span', { class: 'swatch', style: { background: 'var(--shrink)' } }),
        'shrunk; the width is by how much',
      ],
    );
  };
  for (const [select, name] of [
    [from, 'from'],
    [to, 'to'],
  ] as const) {
    select.addEventListener('change', () => {
      state.set({ [name]: select.value, zoom: null });
      explain();
      changed();
    });
  }
  update();
  return { root, update, chosen: () => [from.value || null, to.value || null] };
}
