// Leaks: the sites that have live blocks, the most suspicious first, and on a button the blocks that nothing points to any more.

import { api } from '../api';
import { isLive, isProcess, timeOf, type Context, type View } from '../context';
import { announce, h, replace } from '../dom';
import { bytes, change, clock, count, duration, plural } from '../format';
import { calls, callsColumn, card, sentence, siteName, spark, Table } from '../parts';
import { loadTimeline } from '../timelines';
import type { Leaks, Unreachable } from '../types';

interface Row {
  site: number;
  live: number;
  blocks: number;
  freed: number;
  added: number;
  oldest: number;
  longest: number;
  suspicion: number;
  why: string;
  quarters: number[] | null;
}

const names = ['', 'old', 'grows', 'only grows'];

export function leaksTab(context: Context): View {
  const { page } = context;
  let at = 0,
    since = -Infinity;
  let values = new Map<number, number[]>(); // live bytes of sites over time, but of a live page
  const age = (us: number) => duration(Math.max(0, at - us));
  const caution = h('p', { class: 'quiet' });
  const when = h('span', { class: 'quiet' });
  const detail = h('div', { class: 'detail', tabindex: '-1' });
  const table = new Table<Row>(
    [
      {
        name: 'Site',
        by: (row) => context.tables.label(row.site),
        cell: (row) =>
          h('span', null, siteName(context, row.site), row.why && h('span', { class: row.suspicion >= 2 ? undefined : 'quiet' }, row.why)),
      },
      {
        name: 'Suspicion',
        by: (row) => -row.suspicion,
        cell: (row) =>
          row.suspicion > 0
            ? h('span', { class: `tag${row.suspicion >= 2 ? ' alarm' : ''}` }, names[row.suspicion] ?? '')
            : h('span', { class: 'quiet' }, 'none'),
      },
      {
        name: 'Growth',
        number: true,
        by: (row) => row.added - row.freed,
        cell: (row) => h('span', { class: row.added > row.freed ? undefined : 'quiet' }, change(row.added - row.freed)),
      },
      { name: 'Live', number: true, by: (row) => row.live, cell: (row) => bytes(row.live) },
      { name: 'Blocks', number: true, by: (row) => row.blocks, cell: (row) => count(row.blocks) },
      { name: 'Oldest', number: true, by: (row) => at - row.oldest, cell: (row) => age(row.oldest) },
      {
        name: 'Longest freed life',
        number: true,
        by: (row) => row.longest,
        cell: (row) => (row.longest < 0 ? h('span', { class: 'quiet' }, 'none was freed') : duration(row.longest)),
      },
      {
        name: isLive(context) ? 'Last minutes' : 'Over time',
        cell: (row) =>
          spark(isLive(context) ? context.history.siteValues(row.site, 300) : (values.get(row.site) ?? row.quarters ?? []), 'grow'),
      },
      callsColumn(context, show),
    ],
    'Sites that have live blocks, the most suspicious first',
    20,
  );

  function show(site: number): void {
    replace(detail, h('section', { class: 'card' }, h('h3', null, siteName(context, site)), calls(context, site)));
    detail.focus();
  }

  function draw(leaks: Leaks): void {
    if (leaks.since_us < since) return; // it was asked for before the mark
    since = leaks.since_us;
    at = leaks.at_us;
    caution.textContent = leaks.caution;
    when.textContent = isProcess(context)
      ? `growth since ${clock(timeOf(context, leaks.since_us))}, ${duration(leaks.at_us - leaks.since_us)} ago`
      : `growth since ${duration(leaks.since_us - page.first_us)} after the beginning`;
    table.show(rowsOf(leaks));
  }

  const mark = h(
    'button',
    { type: 'button', on: { click: () => void again().catch((reason: Error) => context.complain(reason, true)) } },
    'Count growth from now',
  );
  async function again(): Promise<void> {
    const leaks = await api.mark();
    await context.tables.need(leaks.known);
    draw(leaks);
    context.settle();
    announce('Growth is counted from now on.');
  }

  const root = h(
    'div',
    { class: 'stack' },
    card('Suspicious', [when, isLive(context) && mark], caution, table.root),
    detail,
    unreachableCard(context, show),
  );
  return {
    root,
    atUS: () => at,
    async refresh() {
      const leaks = await api.leaks();
      await context.tables.need(leaks.known);
      if (!isLive(context) && page.tabs['timeline'] === '')
        values = new Map(((await loadTimeline(context, 'site')).groups ?? []).map((group) => [group.site, group.values]));
      draw(leaks);
    },
  };
}

function rowsOf(leaks: Leaks): Row[] {
  return leaks.site.map((site, i) => ({
    site,
    live: leaks.live[i] ?? 0,
    blocks: leaks.live_blocks[i] ?? 0,
    freed: leaks.freed[i] ?? 0,
    added: leaks.added[i] ?? 0,
    oldest: leaks.oldest_us[i] ?? 0,
    longest: leaks.longest_us?.[i] ?? -1,
    suspicion: leaks.suspicion[i] ?? 0,
    why: leaks.why[i] ?? '',
    quarters: leaks.quarters?.[i] ?? null,
  }));
}

// unreachableCard looks for blocks that nothing points to, if the program can be asked.
function unreachableCard(context: Context, show: (site: number) => void): HTMLElement {
  const why = context.page.tabs['unreachable'] ?? '';
  const result = h('div', { 'aria-live': 'polite' });
  if (why !== '') return card('Unreachable', null, h('p', { class: 'quiet' }, sentence(why)));
  const table = new Table<{ site: number; blocks: number; bytes: number; oldest: number }>(
    [
      { name: 'Site', by: (row) => context.tables.label(row.site), cell: (row) => siteName(context, row.site) },
      { name: 'Bytes', number: true, by: (row) => row.bytes, cell: (row) => bytes(row.bytes) },
      { name: 'Blocks', number: true, by: (row) => row.blocks, cell: (row) => count(row.blocks) },
      { name: 'Oldest', number: true, by: (row) => -row.oldest, cell: (row) => duration(answer ? answer.at_us - row.oldest : 0) },
      callsColumn(context, show),
    ],
    'Blocks that nothing points to any more, by site',
  );
  let answer: Unreachable | null = null;
  const look = h('button', { type: 'button', class: 'main', on: { click: () => void find() } }, 'Look for unreachable blocks');
  async function find(): Promise<void> {
    if (look.ariaDisabled === 'true') return;
    look.ariaDisabled = 'true'; // not disabled, which would take the focus away
    replace(result, h('p', { class: 'quiet' }, 'Looking: the program is stopped for a moment.'));
    try {
      const found = (answer = await api.unreachable());
      await context.tables.need(found.known);
      const all = found.bytes.reduce((sum, n) => sum + n, 0),
        blocks = found.blocks.reduce((sum, n) => sum + n, 0);
      table.show(
        found.site.map((site, i) => ({ site, blocks: found.blocks[i] ?? 0, bytes: found.bytes[i] ?? 0, oldest: found.oldest_us[i] ?? 0 })),
      );
      replace(
        result,
        h(
          'p',
          null,
          h(
            'strong',
            null,
            blocks === 0 ? 'Every block is reachable.' : `${plural(blocks, 'block')} with ${bytes(all)}: nothing points to them any more.`,
          ),
          h(
            'span',
            { class: 'quiet' },
            ` ${plural(found.looked, 'block')} looked at; the program was stopped for ${duration(found.pause_us)} at most.`,
          ),
        ),
        blocks > 0 && table.root,
        found.text && h('details', null, h('summary', null, 'The whole report'), h('pre', { class: 'code', tabindex: '0' }, found.text)),
      );
    } catch (reason) {
      replace(result, h('p', { class: 'bad' }, (reason as Error).message));
    }
    look.ariaDisabled = 'false';
  }
  return card(
    'Unreachable',
    null,
    h(
      'p',
      null,
      'Blocks to which no pointer is left, in Go’s memory or in other blocks: these have leaked. Looking stops the program for a moment.',
    ),
    h('p', { class: 'action' }, look),
    result,
  );
}
