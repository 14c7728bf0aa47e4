// Events: the last ones that were observed, in order, up to millions of them.

import { api } from '../api';
import { timeOf, type Context, type View } from '../context';
import { announce, h, replace } from '../dom';
import { bytes, clock, count, duration, hex, legible, parseSize, plural } from '../format';
import { calls, siteName } from '../parts';
import { Rows } from '../rows';
import type { Events } from '../types';

const choices = [10_000, 100_000, 1_000_000];

export function eventsTab(context: Context): View {
  const { state, tables } = context;
  let events: Events | null = null;
  let times = new Float64Array(0); // nanoseconds since the page's beginning
  let shown = new Uint32Array(0); // rows that fit the filters
  let errors = new Map<number, string>();
  const detail = h('div', { class: 'card detail', tabindex: '-1' });
  const told = h('p', { class: 'quiet', role: 'status' });

  const many = h(
    'select',
    { 'aria-label': 'How many' },
    choices.map((n) => h('option', { value: String(n) }, `the last ${count(n)}`)),
  );
  many.value = String(choices.find((n) => n === state.number('n')) ?? choices[0]);
  many.addEventListener('change', () => {
    state.set({ n: many.value });
    void context.refresh();
  });
  const kind = h('select', { 'aria-label': 'Kind' });
  const find = h('input', {
    type: 'search',
    placeholder: 'function, child or address',
    'aria-label': 'Search events',
    size: '22',
    value: state.get('find') ?? '',
  });
  const least = h('input', {
    type: 'text',
    placeholder: 'such as 64 KiB',
    'aria-label': 'Least size',
    value: state.get('least') ?? '',
    size: '10',
  });
  const changed = () => {
    state.set({ find: find.value, least: least.value, kind: kind.value });
    filter(false);
  };
  kind.addEventListener('change', changed);
  find.addEventListener('input', changed);
  least.addEventListener('input', changed);

  const rows = new Rows({
    label: 'Events',
    columns: [
      { name: 'Number', width: '11%', number: true },
      { name: 'Time', width: '12%' },
      { name: 'Event', width: '13%' },
      { name: 'Size', width: '10%', number: true },
      { name: 'Address', width: '16%' },
      { name: 'Child', width: '13%' },
      { name: 'Allocated by', width: '25%' },
    ],
    cells: (i) => cells(shown[i] ?? 0),
    failed: (i) => isFailure(shown[i] ?? 0),
    onSelect: (i) => replace(detail, about(shown[i] ?? 0)),
  });

  // isMissing says whether a row stands for events that nobody has.
  function isMissing(row: number): boolean {
    return events?.kind[row] === 0;
  }

  function kindOf(row: number): string {
    return events?.kinds[events.kind[row] ?? 0] ?? '';
  }

  function sizeOf(row: number): string {
    const size = events?.size[row] ?? 0;
    return !isMissing(row) ? bytes(size) : size > 0 ? plural(size, 'event') : '';
  }

  function isFailure(row: number): boolean {
    return isMissing(row) || /fail/.test(kindOf(row)) || errors.has(row);
  }

  function address(row: number): string {
    const addr = (events?.addr[row] ?? 0) + (events?.addr_min ?? 0);
    return addr <= 0 ? '' : hex(addr);
  }

  function cells(row: number): string[] {
    if (!events) return [];
    const site = events.site?.[row] ?? -1;
    return [
      count(events.first + row),
      events.timed ? clock(timeOf(context, (times[row] ?? 0) / 1000), 3) : '',
      kindOf(row),
      sizeOf(row),
      address(row),
      legible(tables.text(events.owner[row] ?? 0)),
      site >= 0 ? `${tables.site(site)} ${tables.place(site)}` : '',
    ];
  }

  function about(row: number): HTMLElement {
    if (!events) return h('div');
    const item = (name: string, value: string) => [h('dt', null, name), h('dd', null, value)];
    const site = events.site?.[row] ?? -1;
    const before = row > 0 ? (events.delta_ns[row] ?? 0) : 0;
    return h(
      'div',
      null,
      h('h2', null, `${kindOf(row)} ${sizeOf(row)}`),
      errors.has(row) && h('p', { class: 'bad' }, errors.get(row) ?? ''),
      h(
        'dl',
        null,
        item('Event', count(events.first + row)),
        events.timed
          ? item('Time', `${clock(timeOf(context, (times[row] ?? 0) / 1000), 3)}, ${duration(before / 1000)} after the one before`)
          : [],
        item('Address', address(row) || 'none'),
        item('Child', tables.text(events.owner[row] ?? 0) || 'none'),
      ),
      site >= 0
        ? [h('h3', null, 'Allocated by'), siteName(context, site), calls(context, site)]
        : address(row) !== '' &&
            h('p', { class: 'quiet' }, 'Who allocated the block is not known: it is not live any more, or it was not sampled.'),
    );
  }

  function filter(atEnd: boolean): void {
    if (!events) return;
    const { kind: kinds, size, owner, site } = events;
    const wanted = kind.value === '' ? -1 : Number(kind.value),
      typed = parseSize(least.value),
      smallest = typed ?? 0,
      search = find.value.trim().toLowerCase();
    const fits = search === '' ? null : searcher(search);
    const list = new Uint32Array(kinds.length);
    let length = 0;
    for (let row = 0; row < kinds.length; row++) {
      if (wanted >= 0 && kinds[row] !== wanted) continue;
      if (smallest > 0 && (isMissing(row) || (size[row] as number) < smallest)) continue;
      if (fits && !fits(owner[row] as number, site?.[row] ?? -1, row)) continue;
      list[length++] = row;
    }
    shown = list.subarray(0, length);
    rows.show(length, atEnd);
    const all = `${plural(kinds.length, 'event')} of ${count(events.all)} that were observed`;
    least.ariaInvalid = String(typed === null);
    const wrong = typed === null ? ` ${least.value.trim()} is no size: use one such as 64 KiB.` : '';
    told.textContent = (length === kinds.length ? `${all}, the newest last.` : `${plural(length, 'event')} of these ${all}.`) + wrong;
  }

  // searcher tells of a row whether a text is in the name of its site or child, each of which is looked at once.
  function searcher(search: string): (owner: number, site: number, row: number) => boolean {
    const sites = new Map<number, boolean>(),
      owners = new Map<number, boolean>();
    const isAddress = /^0x[0-9a-f]+$/.test(search);
    return (owner, site, row) => {
      if (isAddress) return address(row).startsWith(search);
      let known = owners.get(owner);
      if (known === undefined) owners.set(owner, (known = tables.text(owner).toLowerCase().includes(search)));
      if (known || site < 0) return known;
      known = sites.get(site);
      if (known === undefined) sites.set(site, (known = tables.label(site).toLowerCase().includes(search)));
      return known;
    };
  }

  const again = h(
    'button',
    { type: 'button', on: { click: () => void context.refresh().then((good) => good && announce('The newest events are shown.')) } },
    'Show the newest',
  );
  replace(
    detail,
    h('p', { class: 'quiet' }, 'Choose an event, with a click or with the arrow keys and Enter: here is then who allocated its block.'),
  );
  const root = h(
    'div',
    { class: 'side late' },
    h(
      'section',
      { class: 'card', 'aria-label': 'Events' },
      h(
        'div',
        { class: 'bar-of-controls' },
        h('label', null, h('span', { class: 'quiet' }, 'Show'), many),
        h('label', null, h('span', { class: 'quiet' }, 'Kind'), kind),
        h('label', null, h('span', { class: 'quiet' }, 'At least'), least),
        h('label', null, h('span', { class: 'quiet' }, 'Search'), find),
        context.page.mode === 'live' && again,
      ),
      told,
      rows.root,
    ),
    detail,
  );

  return {
    root,
    heavy: true,
    atUS: () => events?.at_us ?? 0,
    async refresh() {
      const answer = await api.events(Number(many.value));
      await tables.need(answer.known);
      events = answer;
      errors = new Map((answer.error_row ?? []).map((row, i) => [row, answer.error_text?.[i] ?? '']));
      times = new Float64Array(answer.delta_ns.length);
      let time = answer.begin_ns;
      for (let i = 0; i < times.length; i++) times[i] = time += answer.delta_ns[i] ?? 0;
      const chosen = kind.value || (state.get('kind') ?? '');
      replace(
        kind,
        h('option', { value: '' }, 'all'),
        answer.kinds.map((name, i) => h('option', { value: String(i) }, name)),
      );
      kind.value = answer.kinds[Number(chosen)] !== undefined ? chosen : '';
      filter(true);
    },
  };
}
