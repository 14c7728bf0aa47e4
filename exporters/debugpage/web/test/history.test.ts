// What a live page remembers of very many sites. It needs no browser.

import './nobrowser';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { History } from '../src/history';
import { mostSites } from '../src/sitehistory';
import { Tables } from '../src/tables';
import { areasOf, groupKey } from '../src/timelines';
import { Colours } from '../src/theme';
import type { Context } from '../src/context';
import type { Tables as Answer, Tick, Timeline } from '../src/types';

const owners = ['', 'many', 'few'];

// named returns tables of sites: all of them have the same function, and each its own caller.
function named(sites: number, owner: (site: number) => number): Tables {
  const lines = [...Array(sites + 1).keys()];
  const answer: Answer = {
    from: { texts: 0, frames: 0, sites: 0, nodes: 0 },
    texts: [...owners, 'p.allocate', 'p.caller', 'p.go'],
    frames: { function: lines.map((line) => (line === 0 ? 3 : 4)), file: lines.map(() => 5), line: lines },
    sites: {
      owner: lines.slice(1).map((_, site) => owner(site)),
      stack: lines.slice(1).map((line) => [0, line]),
      cut: lines.map(() => false),
    },
    nodes: { parent: [-1], name: [1] },
  };
  const tables = new Tables();
  tables.add(answer);
  return tables;
}

function tick(second: number, sites: Map<number, number>, whole = false, total = [...sites.values()].reduce((a, b) => a + b, 0)): Tick {
  const ids = [...sites.keys()],
    live = [...sites.values()];
  return {
    id: 'x',
    known: { texts: 0, frames: 0, sites: 0, nodes: 0 },
    at_us: second * 1e6,
    whole,
    total: { live: total, allocated: 0 } as Tick['total'],
    node: [0],
    node_live: [total],
    node_allocated: [0],
    node_blocks: [ids.length],
    node_peak: [total],
    node_failures: [second],
    site: ids,
    site_live: live,
    site_allocated: live.map((bytes) => 2 * bytes),
  };
}

const last = (timeline: Timeline) => (timeline.groups ?? []).reduce((sum, group) => sum + (group.values.at(-1) ?? 0), 0);

test('of a hundred thousand sites, those that matter have their own steps, and the others are sums by owner that add up', () => {
  const sites = 100_000,
    leak = 77_777,
    late = 55_555;
  const tables = named(sites, (site) => (site % 10 === 0 ? 2 : 1));
  const live = new Map<number, number>();
  const history = new History();
  const totals: number[] = [];
  for (let second = 0; second < 40; second++) {
    const changed = new Map<number, number>();
    for (let site = second * 5000; site < Math.min(sites, (second + 1) * 5000); site++) changed.set(site, 64 + (site % 7));
    if (second >= 20) {
      changed.set(leak, 64 + 24 * (second - 19)); // which is little for ever
      for (let n = 0; n < 300; n++) changed.set((second * 977 + n * 331) % 50_000, 60 + (n % 20)); // which go up and down
    }
    if (second >= 30) changed.set(late, 1e6 * (second - 29));
    for (const [site, bytes] of changed) live.set(site, bytes);
    totals.push([...live.values()].reduce((a, b) => a + b, 0));
    history.add(tick(second, changed, second === 0, totals.at(-1)));
    history.prune(tables);
  }
  for (const by of ['site', 'region'] as const) {
    const timeline = history.timeline(by, tables);
    assert.deepEqual(timeline.total, totals);
    for (let step = 0; step < totals.length; step++)
      assert.equal(
        timeline.groups?.reduce((sum, group) => sum + (group.values[step] ?? 0), 0),
        totals[step],
        `${by} at step ${step}`,
      );
  }
  const bySite = history.timeline('site', tables);
  assert.ok((bySite.groups?.length ?? 0) <= 200);
  assert.equal(bySite.groups?.find((group) => group.site === late)?.values.at(-1), 10e6);
  assert.equal(history.siteValues(leak, 3).at(-1), 64 + 24 * 20, 'a leak that is small has its own steps');
  const own = [...Array(sites).keys()].filter((site) => history.siteValues(site, 1).length > 0).length;
  assert.ok(own <= 2 * mostSites, `${own} sites have steps of their own`);
  const byOwner = history.timeline('region', tables);
  for (const [number, name] of owners.entries()) {
    const want = [...live].reduce((sum, [site, bytes]) => sum + (number === (site % 10 === 0 ? 2 : 1) ? bytes : 0), 0);
    assert.equal(byOwner.groups?.find((group) => group.name === name)?.values.at(-1) ?? 0, want, name);
  }
  const latest = history.latest();
  assert.equal(latest.site.length, sites);
  latest.site.forEach((site, i) => assert.equal(latest.live[i], live.get(site)));
  assert.equal(
    history.opened().live.reduce((a, b) => a + b, 0),
    totals[0],
  );
  const nothing = [...live.keys()].find((site) => history.siteValues(site, 1).length === 0) as number;
  assert.equal(history.siteAllocated(nothing, 0, 40e6), null, 'what a site allocated is not known without its steps');

  // A connection that comes back says what there is: of all other sites nothing is left.
  history.add(tick(41, new Map([[late, 5]]), true));
  assert.equal(last(history.timeline('site', tables)), 5);
  assert.equal(last(history.timeline('region', tables)), 5);
});

test('owners that are too many are one, and no byte is lost', () => {
  const sites = 5000;
  const tables = named(sites, (site) => site);
  Object.assign(tables, { owner: (site: number) => `request ${site}` });
  const history = new History();
  history.add(tick(0, new Map([...Array(sites).keys()].map((site) => [site, 1 + site])), true));
  history.prune(tables);
  history.add(tick(1, new Map([[7, 1e6]])));
  const timeline = history.timeline('region', tables);
  const groups = timeline.groups ?? [];
  assert.equal(groups.length, 200);
  assert.equal(last(timeline), (timeline.total[0] as number) + 1e6 - 8);
  assert.equal(
    groups.reduce((sum, group) => sum + Math.max(1, group.rest), 0),
    sites,
  );
  assert.equal(groups.find((group) => group.name === 'request 7')?.values.at(-1), 1e6);
});

test('what there was when the page was opened is not what was most in its first steps', () => {
  const tables = named(2, () => 1);
  const history = new History();
  for (let second = 0; second <= 5000; second++)
    history.add(tick(second, new Map([[0, second === 0 ? 10 : second < 4 ? 900 : 20]]), second === 0));
  assert.ok(history.stepUS > 2e6);
  assert.deepEqual(history.opened().live, [10]);
  for (const by of ['site', 'child', 'region'] as const) {
    const [group] = history.timeline(by, tables).groups ?? [];
    assert.deepEqual([group?.values[0], group?.values.at(-1), group?.peak], [10, 20, 900], by);
  }
});

test('the last tick says what a node has', () => {
  const history = new History();
  history.add(tick(1, new Map([[0, 4]]), true));
  history.add(tick(3, new Map([[0, 9]])));
  assert.deepEqual(history.node(0), { live: 9, allocated: 0, blocks: 1, peak: 9, failures: 3 });
  assert.equal(history.node(1), null);
});

test('sites of the same function have their callers in their names, and colours of their own', () => {
  const tables = named(3, (site) => (site === 2 ? 2 : 1));
  assert.deepEqual(
    [0, 1, 2].map((site) => tables.label(site)),
    ['p.allocate p.go:0 · many · by p.caller (p.go:1)', 'p.allocate p.go:0 · many · by p.caller (p.go:2)', 'p.allocate p.go:0 · few'],
  );
  const stack = [0, 1, 2];
  const same = named(3, () => 1);
  Object.assign(same, { label: () => 'the same', brief: () => 'the same' });
  const timeline = {
    by: 'site',
    total: [6],
    groups: stack.map((site) => ({ site, name: '', rest: 0, peak: 2, values: [2] })),
  } as unknown as Timeline;
  const context = { tables: same, colours: { site: new Colours() } } as unknown as Context;
  for (let again = 0; again < 2; again++) {
    const areas = areasOf(context, timeline, 8);
    assert.deepEqual(
      areas.map((area) => [area.key, area.colour]),
      [
        ['0', 'c0'],
        ['1', 'c1'],
        ['2', 'c2'],
      ],
    );
  }
  assert.equal(new Set((timeline.groups ?? []).map(groupKey)).size, 3);
});
