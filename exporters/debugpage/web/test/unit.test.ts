// What needs no browser.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { bytes, change, coarse, digitsOf, duration, legible, parseSize, rate, share, shortFunction } from '../src/format';
import { depthOf, find, flameTree, matching, pathOf } from '../src/flametree';
import { History } from '../src/history';
import { Free, Clean, MapModel, Unsampled } from '../src/mapmodel';
import type { Tables } from '../src/tables';
import type { MemoryMap, Snapshot, Tick } from '../src/types';

test('numbers are written as the library writes them', () => {
  // counter.FormatBytes has the same forms.
  for (const [n, want] of [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [4096, '4 KiB'],
    [1048576, '1 MiB'],
    [215_460_000, '205.48 MiB'],
    [-65536, '−64 KiB'],
    [-0.4, '0 B'],
    [2 ** 53, '8 PiB'],
  ] as const) {
    assert.equal(bytes(n), want);
  }
  assert.deepEqual([change(1024), change(0), change(-1024)], ['+1 KiB', '0 B', '−1 KiB']);
  assert.deepEqual([coarse(1000), coarse(64 << 20), coarse(123_456_789)], ['0.98 KiB', '64 MiB', '118 MiB']);
  assert.deepEqual([0.25, 12, 1450, 12_300_000, 128e6, 3720e6, 100 * 3600e6].map(duration), [
    '250ns',
    '12µs',
    '1.45ms',
    '12.3s',
    '2m8s',
    '1h2m',
    '4d4h',
  ]);
  assert.deepEqual([share(1, 3), share(1, 10_000), share(0, 5), share(5, 0), share(1, 40)], ['33 %', '< 0.1 %', '0 %', '0 %', '2.5 %']);
  assert.deepEqual([rate(12.4), rate(40_000), rate(999_960), rate(2.5e6)], ['12', '40 thousand', '1 million', '2.5 million']);
  assert.deepEqual([5000, 1000, 250, 10, 3, 0].map(digitsOf), [0, 0, 1, 2, 3, 3]);
  assert.equal(shortFunction('github.com/a/b.c/cache.(*Cache[...]).load.func1'), 'cache.(*Cache).load.func1');
});

test('a size is read in the forms that people write, and nothing else is one', () => {
  for (const [typed, want] of [
    ['', 0],
    ['4096', 4096],
    [' 64 KiB ', 65536],
    ['1.5m', 1.5 * 2 ** 20],
    ['.5 kb', 512],
    ['1.2.3', null],
    ['.', null],
    ['-1', null],
    ['64 parsecs', null],
  ] as const) {
    assert.equal(parseSize(typed), want, typed);
  }
});

test('a name is shown as people can read it', () => {
  const long = `${'a'.repeat(90)}${'🙂'.repeat(90)}`;
  for (const [name, want] of [
    ['', ''],
    ['cache', 'cache'],
    ['a/b <b>', 'a/b <b>'],
    ['exe\u202efdp.exe', 'exe\ufffdfdp.exe'],
    ['a\nb\0', 'a\ufffdb\ufffd'],
    [' ', '“ ”'],
    ['שלום 12', '\u2068שלום 12\u2069'],
    ['x'.repeat(100), 'x'.repeat(100)],
    [long, `${'a'.repeat(60)} … ${'🙂'.repeat(35)}`],
  ] as const) {
    assert.equal(legible(name), want);
  }
});

const names = ['alloc', 'work', 'main', 'idle'];
const stacks: Record<number, number[]> = { 0: [0, 1, 2], 1: [3, 2], 2: [] };
const tables = {
  frames: (site: number) => stacks[site] ?? [],
  frame: (i: number) => ({ fn: `p.${names[i]}`, file: 'p.go', line: i }),
  owner: (site: number) => (site === 2 ? 'cache' : ''),
  path: (node: number) => `n${node}`,
  parent: (node: number) => (node === 0 ? -1 : 0),
} as unknown as Tables;

test('a flame graph has each byte once at each depth', () => {
  const tree = flameTree(tables, [
    { site: 0, value: 70 },
    { site: 1, value: 20 },
    { site: 2, value: 10 },
  ]);
  assert.equal(tree.value, 100);
  assert.equal(depthOf(tree), 3);
  assert.deepEqual(
    tree.children.map((at) => [at.fn, at.value, at.start]),
    [
      ['p.main', 90, 0],
      ['cache', 10, 90],
    ],
  );
  const alloc = find(tree, ['p.main', 'p.work', 'p.alloc']);
  assert.deepEqual([alloc.fn, alloc.self, pathOf(alloc)], ['p.alloc', 70, ['p.main', 'p.work', 'p.alloc']]);
  assert.equal(find(tree, ['p.main', 'gone']).fn, 'p.main');
  assert.equal(matching(tree, /work|alloc/).value, 70);
});

test('a difference has as its width what has grown and what has shrunk', () => {
  const tree = flameTree(tables, [
    { site: 0, value: 70 },
    { site: 1, value: -20 },
  ]);
  assert.deepEqual([tree.value, tree.net], [90, 50]);
  assert.deepEqual(
    tree.children[0]?.children.map((at) => at.net),
    [70, -20],
  );
});

function tick(second: number, live: number[], whole = false): Tick {
  return {
    id: 'x',
    known: { texts: 0, frames: 0, sites: 0, nodes: 0 },
    at_us: second * 1e6,
    whole,
    total: { live: live.reduce((a, b) => a + b, 0), allocated: 0 } as Tick['total'],
    node: [0, 1],
    node_live: [live.reduce((a, b) => a + b, 0), live[1] ?? 0],
    node_allocated: [second * 100, 0],
    node_blocks: [live.length, 1],
    node_peak: [9, 9],
    node_failures: [second, 0],
    site: live.map((_, i) => i),
    site_live: live,
    site_allocated: live.map(() => second * 10),
  };
}

test('the history keeps what is not told of, has a line where ticks are missing, and adds up', () => {
  const history = new History();
  history.add(tick(0, [1, 2], true));
  history.add({ ...tick(1, []), site: [1], site_live: [5], site_allocated: [50] });
  history.add(tick(4, [3, 3]));
  const timeline = history.timeline('site', tables);
  assert.deepEqual(
    timeline.groups?.map((group) => [group.site, group.values]),
    [
      [1, [2, 5, 4, 4, 3]],
      [0, [1, 1, 2, 2, 3]],
    ],
  );
  assert.equal(history.siteAllocated(1, 0, 1e6), 50);
  const children = history.timeline('child', tables);
  assert.deepEqual(children.groups?.find((group) => group.name === 'n0')?.values.at(-1), 3);
  assert.equal(history.nodeRate(0, 10e6), 100);
});

test('the last step of a long time has what is live now', () => {
  const history = new History();
  for (let second = 0; second <= 5000; second++) history.add(tick(second, [second === 5000 ? 3 : 900, 7], second === 0));
  assert.ok(history.stepUS > 1e6);
  for (const by of ['site', 'child', 'region'] as const) {
    const { groups, total } = history.timeline(by, tables);
    assert.equal(total.at(-1), 10, by);
    assert.equal(
      groups?.reduce((sum, group) => sum + (group.values.at(-1) ?? 0), 0),
      10,
      by,
    );
    assert.equal(Math.max(...(groups ?? []).map((group) => group.peak)), by === 'region' ? 907 : 900, by);
  }
});

test('rates of the last ticks count what those of the server do', () => {
  const history = new History();
  for (const second of [1, 2, 3]) {
    const one = tick(second, [1], second === 1);
    history.add({ ...one, total: { ...one.total, freed: 0, allocations: 10 * second, reallocations: 5 * second } });
  }
  const { allocations_per_second, rate_us } = history.upToDate({ at_us: 1e6 } as Snapshot);
  assert.deepEqual([allocations_per_second, rate_us], [15, 2e6]);
});

test('the history of days has the peaks, and no more steps than of minutes', () => {
  const history = new History();
  for (let second = 0; second < 100_000; second++) history.add(tick(second, [second === 54_321 ? 999 : 1], second === 0));
  const { total, step_us } = history.timeline('site', tables);
  assert.ok(total.length <= 1200 && total.length >= 500, `${total.length} steps`);
  assert.equal(Math.max(...total), 999);
  assert.equal(Math.floor((54_321 * 1e6) / step_us + 0.5), total.indexOf(999));
});

test('a map knows live, free and clean cells, and those that were not sampled', () => {
  const map = {
    known: { texts: 0, frames: 0, sites: 0, nodes: 0 },
    at_us: 0,
    allocators: [
      {
        name: 'Pool 1',
        kind: 'Pool',
        span: 'run',
        reserved: 0,
        addr_min: 0,
        omitted: 0,
        spans: { addr: [0, 4096], size: [4096, 4096], free: [2048, 4096], dirty: [1024, 0], block: [1024, 1024], live: [2, 0] },
        blocks: { addr: [1024], size: [1024], span: [0], allocated_us: [0], site: [7] },
      },
    ],
  } satisfies MemoryMap;
  const model = new MapModel(map);
  const [group] = model.groups;
  assert.ok(group);
  assert.deepEqual([group.live, group.free, group.clean, group.blocks, group.unknown], [2048, 1024, 5120, 2, 1]);
  assert.deepEqual([...model.kinds(group, 0)], [Unsampled, 0, Free, Clean]);
  assert.deepEqual([...model.kinds(group, 1)], [Clean, Clean, Clean, Clean]);
  assert.equal(model.blockAt({ group, span: 0, index: 1 }), 0);
  assert.deepEqual(model.keepers(group), [{ site: 7, blocks: 1, spans: 1 }]);
});

test('what an allocator has cut out of another counts once, and the map says whose it is', () => {
  const spans = (addr: number[], size: number[], free: number[], dirty: number[], block: number[]) => ({
    addr,
    size,
    free,
    dirty,
    block,
    live: addr.map((_, i) => ((size[i] ?? 0) - (free[i] ?? 0)) / (block[i] ?? 1)),
  });
  const blocks = { addr: [], size: [], span: [], allocated_us: [], site: [] };
  const common = { kind: '', span: '', reserved: 0, omitted: 0, blocks };
  const model = new MapModel({
    known: { texts: 0, frames: 0, sites: 0, nodes: 0 },
    at_us: 0,
    allocators: [
      {
        ...common,
        name: 'Slab 1',
        addr_min: 8192,
        spans: spans([0, 4096, 65536], [4096, 4096, 4096], [1024, 0, 4096], [512, 0, 0], [64, 64, 64]),
      },
      { ...common, name: 'Pool 1', addr_min: 4096, spans: spans([0, 16384], [16384, 8192], [8192, 8192], [4096, 0], [4096, 8192]) },
    ],
  });
  assert.equal(model.size, 16384 + 8192 + 4096);
  const [slab, pool] = model.map.allocators ?? [];
  assert.ok(slab && pool);
  assert.deepEqual(
    model.within(pool).map(({ allocator, bytes }) => [allocator.name, bytes]),
    [['Slab 1', 8192]],
  );
  assert.deepEqual(model.within(slab), []);
});

test('text can be read on each background that it can have, in light and dark', () => {
  const themes = [...readFileSync(`${process.env['WEB']}/src/styles/colours.css`, 'utf8').matchAll(/:root([^{]*)\{([^}]*)\}/g)];
  assert.equal(themes.length, 2);
  for (const [, theme, rules] of themes) {
    const colours = new Map(
      [...(rules as string).matchAll(/--([\w-]+):\s*#(\w+)/g)].map(([, name, hex]) => [name as string, hex as string]),
    );
    const channels = (name: string) => {
      const hex = colours.get(name) ?? assert.fail(`there is no ${name}`);
      const long = hex.length === 3 ? [...hex].map((c) => c + c).join('') : hex;
      return [0, 2, 4].map((i) => Number.parseInt(long.slice(i, i + 2), 16));
    };
    const light = (rgb: number[]) => {
      const [r, g, b] = rgb.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)) as [
        number,
        number,
        number,
      ];
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (a: number[], b: number[]) => {
      const [low, high] = [light(a), light(b)].sort((x, y) => x - y) as [number, number];
      return (high + 0.05) / (low + 0.05);
    };
    const all: [string, string][] = ['text', 'quiet', 'accent', 'bad', 'good'].flatMap((text) =>
      ['page', 'card', 'raised', 'shade'].map((behind): [string, string] => [text, behind]),
    );
    for (const soft of ['accent', 'bad', 'good']) all.push([soft, `${soft}-soft`], ['text', `${soft}-soft`]);
    for (const frame of ['f0', 'f1', 'f2', 'f3', 'f4', 'f5', 'f6', 'f7', 'f-dim']) all.push(['f-text', frame]);
    all.push(['quiet', 'accent-soft'], ['quiet', 'bad-soft'], ['text', 'warn-soft'], ['on-accent', 'accent']);
    for (const [text, behind] of all) {
      const ratio = contrast(channels(text), channels(behind));
      assert.ok(ratio >= 4.5, `${theme}: ${text} on ${behind} has a contrast of ${ratio.toFixed(2)}, and needs 4.5`);
    }
    const [card, heat] = [channels('card'), channels('heat')];
    const hottest = card.map((c, i) => c + 0.6 * ((heat[i] as number) - c)); // as tabs/lifetimes.ts mixes them
    assert.ok(contrast(channels('text'), hottest) >= 4.5, `${theme}: the hottest cell`);
  }
});
