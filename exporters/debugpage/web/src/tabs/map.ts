// The map: every block of every Pool and Slab, where it lies; what is free between them, and who keeps it from others.

import { api } from '../api';
import { timeOf, type Context, type View } from '../context';
import { announce, h, replace } from '../dom';
import { bytes, clock, count, duration, hex, plural, share } from '../format';
import { MapCanvas } from '../mapcanvas';
import { addressOf, cellNoun, Clean, MapModel, spanNoun, Unsampled, type Cell, type Group } from '../mapmodel';
import { calls, card, segments, siteName, strip, swatch, Table, type Part } from '../parts';
import { colour, seriesColours } from '../theme';
import type { MapAllocator } from '../types';

type By = 'state' | 'age' | 'site';

const ages: { most: number; name: string }[] = [
  { most: 1e6, name: 'up to 1s' },
  { most: 10e6, name: '10s' },
  { most: 60e6, name: '1m' },
  { most: 600e6, name: '10m' },
  { most: Infinity, name: 'older' },
];

export function mapTab(context: Context): View {
  const { state } = context;
  let by: By = (['state', 'age', 'site'] as const).find((one) => one === state.get('by')) ?? 'state';
  let model: MapModel | null = null;
  let first = true;
  let siteColour = new Map<number, string>();
  const legend = h('ul', { class: 'legend' });
  const unsampled = h('p', { class: 'quiet' });
  const summary = h('div', { class: 'stack' });
  const lead = h('p', { class: 'quiet' });
  const detail = h('div', { class: 'card detail', tabindex: '-1', 'aria-live': 'polite' });
  const atUS = () => model?.map.at_us ?? 0;
  const freeColour = () => (by === 'state' ? 'map-free' : 'other'); // for sites and ages have that colour too

  const canvas = new MapCanvas('Map of blocks.', {
    fill(group, row) {
      const { blocks } = group.allocator;
      if (by === 'age') return colour(`a${ages.findIndex(({ most }) => atUS() - (blocks.allocated_us[row] ?? 0) <= most)}`);
      if (by === 'site') return colour(siteColour.get(blocks.site[row] ?? -1) ?? 'other');
      return colour('map-live');
    },
    free: () => colour(freeColour()),
    describe: (cell) => (model ? describe(context, model, cell) : ''),
    onSelect: (cell) => {
      if (!model) return;
      replace(detail, about(context, model, cell));
      announce(describe(context, model, cell));
      state.set({
        in: cell.group.allocator.name,
        at: hex(addressOf(cell)),
      });
    },
  });
  const table = new Table<Group>(
    [
      {
        name: 'Blocks of',
        by: (group) => group.block,
        cell: (group) =>
          h(
            'button',
            { type: 'button', class: 'link', on: { click: () => canvas.scrollTo(group) } },
            `${sizeName(group)}, ${group.allocator.name}`,
          ),
      },
      {
        name: 'Spans',
        number: true,
        by: (group) => group.spans.length,
        cell: (group) => plural(group.spans.length, spanNoun(group.allocator)),
      },
      { name: 'In spans', number: true, by: (group) => group.size, cell: (group) => bytes(group.size) },
      { name: 'Live', number: true, by: (group) => group.live, cell: (group) => bytes(group.live) },
      { name: 'Free', number: true, by: (group) => group.free, cell: (group) => bytes(group.free) },
      { name: 'Live share', number: true, by: (group) => group.live / group.size, cell: (group) => share(group.live, group.size) },
      { name: 'Clean', number: true, by: (group) => group.clean, cell: (group) => (group.known ? bytes(group.clean) : 'not known') },
      {
        name: 'Live blocks',
        number: true,
        by: (group) => group.blocks,
        cell: (group) => `${count(group.blocks)}${group.unknown > 0 ? `, ${count(group.unknown)} not sampled` : ''}`,
      },
    ],
    'The same as a table: what is free has memory behind it, what is clean has none',
    12,
  );

  const draw = () => {
    if (!model) return;
    const placed = sitesOf(model);
    const colours = context.colours.site.of(placed.slice(0, seriesColours).map(String));
    siteColour = new Map(placed.slice(0, seriesColours).map((site, i) => [site, colours[i] ?? 'other']));
    const known = model.groups.some((group) => group.known);
    const empty = known
      ? [
          { name: 'free, with memory behind', colour: freeColour() },
          { name: 'clean: free, without memory', colour: 'map-clean' },
        ]
      : [{ name: 'free', colour: freeColour() }];
    const unknown = model.groups.reduce((sum, group) => sum + group.unknown, 0);
    unsampled.textContent =
      unknown > 0
        ? `${plural(unknown, 'live block')} ${unknown === 1 ? 'was' : 'were'} not sampled, or came meanwhile: which squares they have is not known, and the first free ones are drawn as theirs.`
        : '';
    const sampled = model.groups.some((group) => group.unknown > 0) ? [{ name: 'live, not sampled', colour: 'strong-line' }] : [];
    const live =
      by === 'state'
        ? [{ name: 'live', colour: 'map-live' }]
        : by === 'age'
          ? ages.map(({ name }, i) => ({ name, colour: `a${i}` }))
          : [
              ...[...siteColour].map(([site, colour]) => ({ name: context.tables.brief(site), colour })),
              ...(placed.length > seriesColours ? [{ name: `${placed.length - seriesColours} more`, colour: 'other' }] : []),
            ];
    replace(
      legend,
      [...live, ...sampled, ...empty].map(({ name, colour }) => h('li', null, swatch(colour), name)),
    );
    canvas.show(model);
  };

  replace(
    detail,
    h(
      'p',
      { class: 'quiet' },
      'Click a block, or walk to one with the arrow keys and press Enter: here is then who allocated it, when, and what lies around it.',
    ),
  );
  const root = h(
    'div',
    { class: 'stack' },
    card('How memory lies', lead, summary),
    h(
      'div',
      { class: 'side' },
      h(
        'section',
        { class: 'card', 'aria-label': 'Map of blocks' },
        h(
          'div',
          { class: 'bar-of-controls' },
          segments<By>(
            'Colour by',
            [
              { id: 'state', name: 'State' },
              { id: 'age', name: 'Age' },
              { id: 'site', name: 'Site' },
            ],
            by,
            (chosen) => {
              by = chosen;
              state.set({ by });
              draw();
            },
          ),
        ),
        legend,
        unsampled,
        canvas.root,
      ),
      detail,
    ),
    card('By size of blocks', null, table.root),
  );
  return {
    root,
    atUS: () => model?.map.at_us ?? 0,
    async refresh() {
      const map = await api.map();
      await context.tables.need(map.known);
      model = new MapModel(map);
      table.show(model.groups);
      replace(summary, summaries(model));
      const free = bytes(model.groups.reduce((sum, group) => sum + group.free, 0));
      lead.textContent = model.groups.some((group) => group.known)
        ? `${free} lies idle: free, and it still takes memory`
        : `${free} is free between blocks; whether it takes memory is not known`;
      draw();
      const at = Number(state.get('at') ?? NaN);
      const cell = first && Number.isFinite(at) ? model.find(state.get('in') ?? '', at) : null;
      if (cell) canvas.choose(cell);
      first = false;
    },
    redraw: draw,
  };
}

function sizeName(group: Group): string {
  return group.block > 0 ? bytes(group.block) : 'mixed sizes';
}

// sitesOf are the sites of all blocks, the one with the most bytes first.
function sitesOf(model: MapModel): number[] {
  const sum = new Map<number, number>();
  for (const { blocks } of model.map.allocators ?? []) {
    for (let i = 0; i < blocks.site.length; i++)
      sum.set(blocks.site[i] as number, (sum.get(blocks.site[i] as number) ?? 0) + (blocks.size[i] as number));
  }
  return [...sum].sort((a, b) => b[1] - a[1]).map(([site]) => site);
}

function summaries(model: MapModel): HTMLElement[] {
  const allocators = (model.map.allocators ?? []).filter((allocator) => allocator.spans.addr.length > 0);
  const free = (allocator: MapAllocator) => model.groups.reduce((sum, group) => sum + (group.allocator === allocator ? group.free : 0), 0);
  return allocators
    .sort((a, b) => free(b) - free(a))
    .map((allocator) => {
      const groups = model.groups.filter((group) => group.allocator === allocator);
      const sum = (of: (group: Group) => number) => groups.reduce((all, group) => all + of(group), 0);
      const inside = model.within(allocator).map(({ allocator: { name }, bytes: of }) => `${bytes(of)} of it is ${name}’s`);
      const parts: Part[] = [
        { name: 'live', bytes: sum((group) => group.live), colour: 'map-live', ...(inside.length > 0 && { note: inside.join(', ') }) },
        { name: 'free', bytes: sum((group) => group.free), colour: 'map-free' },
        ...(allocator.spans.dirty ? [{ name: 'clean', bytes: sum((group) => group.clean), colour: 'map-clean' }] : []),
      ];
      const size = sum((group) => group.size);
      const aside = h(
        'span',
        { class: 'quiet' },
        `${bytes(size)} in ${plural(allocator.spans.addr.length, spanNoun(allocator))}${allocator.reserved > 0 ? `, of ${bytes(allocator.reserved)} of address space` : ''}${allocator.omitted > 0 ? ` · ${count(allocator.omitted)} blocks are left out` : ''}`,
      );
      return h('div', null, h('header', { class: 'between' }, h('h3', null, allocator.name), aside), strip(allocator.name, parts, size));
    });
}

function describe(context: Context, model: MapModel, cell: Cell): string {
  const { group } = cell;
  const row = model.blockAt(cell);
  if (row < 0) {
    const kind = model.kinds(group, cell.span)[cell.index];
    return `${kind === Unsampled ? 'live, not sampled' : kind === Clean ? 'clean' : 'free'}: ${sizeName(group)}`;
  }
  const { blocks } = group.allocator;
  return `${bytes(blocks.size[row] ?? 0)}, ${duration(model.map.at_us - (blocks.allocated_us[row] ?? 0))} old, by ${context.tables.label(blocks.site[row] ?? -1)}`;
}

function about(context: Context, model: MapModel, cell: Cell): HTMLElement {
  const { group, span } = cell;
  const { blocks, spans, addr_min: base, name } = group.allocator;
  const noun = spanNoun(group.allocator);
  const row = model.blockAt(cell);
  const item = (title: string, value: string) => [h('dt', null, title), h('dd', null, value)];
  const free = spans.free[span] ?? 0,
    size = spans.size[span] ?? 0;
  const place = h(
    'dl',
    null,
    item('In', `a ${noun} of ${bytes(size)} of ${name}, of which ${bytes(free)} is free`),
    item('It is at', hex((spans.addr[span] ?? 0) + base)),
    group.block > 0
      ? item(`Its ${cellNoun(group.allocator)}`, `${count(model.cells(group, span))} of ${sizeName(group)}`)
      : item('A square is', bytes(group.unit)),
  );
  if (row < 0)
    return h(
      'div',
      null,
      h('h2', null, `${describe(context, model, cell).replace(/:.*/, '')}, ${sizeName(group)}`),
      place,
      pinning(context, model, cell),
    );
  const allocated = blocks.allocated_us[row] ?? 0,
    site = blocks.site[row] ?? -1;
  return h(
    'div',
    null,
    h('h2', null, siteName(context, site)),
    h(
      'dl',
      null,
      item('Size', bytes(blocks.size[row] ?? 0)),
      item('Address', hex((blocks.addr[row] ?? 0) + base)),
      item('Allocated', `${clock(timeOf(context, allocated), 3)}, ${duration(model.map.at_us - allocated)} ago`),
    ),
    h('h3', null, 'Calls'),
    calls(context, site),
    h('h3', null, 'Where it lies'),
    place,
  );
}

// pinning says whose blocks keep a span from being used for others.
function pinning(context: Context, model: MapModel, { group, span }: Cell): HTMLElement {
  const { blocks } = group.allocator;
  const [from, to] = model.blocks(group.allocator, span);
  const sites = new Map<number, number>();
  for (let row = from; row < to; row++) sites.set(blocks.site[row] ?? -1, (sites.get(blocks.site[row] ?? -1) ?? 0) + 1);
  if (sites.size === 0) return h('p', null, 'Nothing in it is live: all of it can be given back, or serve other sizes.');
  const list = [...sites].sort((a, b) => b[1] - a[1]).slice(0, 5);
  return h(
    'div',
    null,
    h('h3', null, 'Kept by'),
    h(
      'ul',
      { class: 'calls' },
      list.map(([site, n]) => h('li', null, siteName(context, site), h('small', null, plural(n, 'live block')))),
    ),
  );
}
