// Every tab shows what is planted where a stranger looks first.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import type { Snapshot } from '../src/types';
import { launch, Program, rows, text, Visit } from './browser';

let program: Program, browser: Browser;

before(async () => {
  [program, browser] = await Promise.all([Program.start(), launch()]);
});
after(async () => {
  await browser?.close();
  await program?.stop();
});

// look opens the page on a tab and closes it, which fails where there was an error.
async function look(
  tab: Parameters<Visit['show']>[1],
  parameters: string,
  check: (page: Page, visit: Visit) => Promise<void>,
): Promise<void> {
  const visit = await Visit.open(browser);
  await visit.show(program.url, tab, parameters);
  await check(visit.page, visit);
  await visit.close();
}

test('overview: what grew, who holds it, how it lies', () =>
  look('overview', '', async (page, visit) => {
    await visit.until('the leak is what grew, and why it is suspicious is said: of the first blocks that is nothing yet', async () =>
      /^What grew\? plant\.\(\*Program\)\.receiveUpload \+[\d.]+ [KM]iB.*none was freed/.test(await text(page, '.answer >> nth=0')),
    );
    assert.match(await text(page, '.answer >> nth=1'), /^Who holds it\? plant\.\(\*Program\)\.\w+ \d+ %.* in [\d,]+ blocks/);
    await visit.until('the fragmented index is named', async () => /lies idle/.test(await text(page, '.answer >> nth=2')));
    assert.match(
      await text(page, '.answer >> nth=2'),
      /Slab 1 for blocks of 256 B, kept by 1,024 live blocks of plant\.\(\*Program\)\.buildIndex/,
    );
    assert.match(await text(page, '.figures'), /Live [\d.]+ MiB .*Failures [1-9]/);
    const children = await rows(page, /Proxies and their children/);
    assert.match(children[0] ?? '', /^app /);
    assert.ok(
      children.some((row) => /^thumbnails 1 MiB .* 100 % used$/.test(row)),
      `no child is at its limit: ${children.join('\n')}`,
    );
    assert.match(
      await text(page, '#panel'),
      /Where the memory of the process is .*allocators [\d.]+ [KM]iB .*Go heap [\d.]+ MiB .*unattributed/,
    );
  }));

test('timeline: a span that is selected by mouse, what was allocated there and is live', () =>
  look('timeline', '', async (page, visit) => {
    await visit.until('the leak has grown by some MiB', async () =>
      /receiveUpload.*\+(\d\d|[4-9])[\d.]* MiB/.test((await rows(page, /What is stacked/)).join('\n')),
    );
    const box = await page.locator('.u-over').boundingBox();
    assert.ok(box);
    await page.mouse.move(box.x + box.width * 0.3, box.y + 50);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.8, box.y + 60, { steps: 5 });
    await page.mouse.up();
    await visit.until('the leak is first of what is live of the span', async () =>
      ((await rows(page, /allocated in the span/))[0] ?? '').includes('receiveUpload'),
    );
    assert.match(await text(page, '#panel'), /From \d\d:\d\d:\d\d\.\d to .* in [\d,]+ blocks allocated there are live now\./);
    assert.match(page.url(), /#timeline\?.*from=-?\d+&to=\d+/);
    const [uploads] = await rows(page, /allocated in the span/);
    assert.match(uploads ?? '', /[\d.]+ MiB \d+ about [\d.]+ MiB \d+ %/);
    await page.getByRole('button', { name: 'Child' }).click();
    await visit.until('it is stacked by child', async () =>
      (await rows(page, /What is stacked/)).some((row) => row.startsWith('app/uploads')),
    );
  }));

test('timeline: a span that is selected by keys', () =>
  look('timeline', '', async (page, visit) => {
    await visit.until('the leak has grown by some MiB', async () =>
      /receiveUpload.*\+(\d\d|[4-9])[\d.]* MiB/.test((await rows(page, /What is stacked/)).join('\n')),
    );
    await page.locator('.plot').focus();
    await page.keyboard.press('ArrowLeft');
    assert.match(await page.locator('#announce').innerText(), /^\d\d:\d\d:\d\d: [\d.]+ MiB\. plant/);
    for (let i = 0; i < 3; i++) await page.keyboard.press('Shift+ArrowLeft');
    await visit.until('the span has a sentence', async () => /allocated there (is|are) live now/.test(await text(page, '#panel')));
    await page.keyboard.press('Escape');
    await visit.until('the selection has ended', async () => !/allocated there/.test(await text(page, '#panel')));
    assert.doesNotMatch(page.url(), /from=/);
  }));

test('flame graph: the storm by what was allocated, search, change since', () =>
  look('flame', 'by=allocated', async (page, visit) => {
    const [first] = await rows(page, /^Sites by bytes that were allocated/);
    assert.match(first ?? '', /^plant\.\(\*Program\)\.parseRequest plant\.go:\d+ · for parser/);
    await page.getByRole('searchbox', { name: 'Search functions' }).fill('parse');
    assert.match(await text(page, '.bar-of-controls'), /\d+ frames? with [\d.]+ [KMG]iB, \d+ %/);
    assert.match(page.url(), /find=parse/);
    await page.getByRole('searchbox', { name: 'Search functions' }).fill('');
    await page.getByRole('group', { name: 'By', exact: true }).getByRole('button', { name: 'Live' }).click();
    await visit.until('what has changed can be chosen', async () => (await page.getByLabel('Compared with').locator('option').count()) > 1);
    await page.getByLabel('Compared with').selectOption({ index: 1 });
    await visit.until('the leak has grown most', async () =>
      /^plant\.\(\*Program\)\.receiveUpload .* \+[\d.]+ [KM]iB/.test((await rows(page, /how that has changed/))[0] ?? ''),
    );
  }));

test('two marks, and what has changed between them', () =>
  look('leaks', '', async (page, visit) => {
    const grows = async (atLeast: RegExp) => atLeast.test((await rows(page, /most suspicious first/))[0] ?? '');
    await page.getByRole('button', { name: 'Mark' }).click();
    await visit.until('the first mark is there', async () => (await page.locator('#announce').innerText()).startsWith('This is mark 1.'));
    await visit.until('the leak has grown since', () => grows(/receiveUpload.* \+[\d.]+ MiB/));
    await page.getByRole('button', { name: 'Mark' }).click();
    await visit.until('the second mark is there', async () => (await page.locator('#announce').innerText()).startsWith('This is mark 2.'));
    await page.getByRole('tab', { name: 'Flame graph' }).click();
    await visit.ready('flame');
    await page
      .getByLabel('Compared with')
      .selectOption({ label: (await page.getByLabel('Compared with').locator('option', { hasText: 'mark 1' }).innerText()).trim() });
    await page
      .getByLabel('And', { exact: true })
      .selectOption({ label: (await page.getByLabel('And', { exact: true }).locator('option', { hasText: 'mark 2' }).innerText()).trim() });
    await visit.until('the leak has grown most', async () =>
      /^plant\.\(\*Program\)\.receiveUpload .* \+[\d.]+ [KM]iB/.test((await rows(page, /how that has changed/))[0] ?? ''),
    );
    const between = async () => (await rows(page, /how that has changed/))[0] ?? '';
    const first = await between();
    assert.match(first, / not known Calls$/, 'of a mark it is not known how many blocks were live');
    let told = 0; // what is live now, which is other blocks each time
    await page.route('**/api/snapshot*', async (route) => {
      const response = await route.fetch();
      const answer = (await response.json()) as Snapshot;
      told++;
      for (const column of [answer.sites.live, answer.sites.live_blocks]) column.forEach((n, i) => (column[i] = n + 1000 * told));
      await route.fulfill({ response, json: answer });
    });
    for (let i = 1; i <= 2; i++) {
      await page.getByRole('tab', { name: 'Overview' }).click();
      await page.getByRole('tab', { name: 'Flame graph' }).click();
      await visit.ready('flame');
      assert.equal(await between(), first, 'it is not the same between two marks, however much time has passed');
      assert.ok(told >= i);
    }
  }));

test('flame graph: keys walk and zoom', () =>
  look('flame', '', async (page) => {
    const graph = page.getByRole('application', { name: /^Flame graph/ });
    await graph.focus();
    const says = () => page.locator('#announce').innerText();
    await page.keyboard.press('ArrowDown');
    assert.match(await says(), /^all, [\d.]+ MiB/);
    await page.keyboard.press('ArrowDown');
    const outer = await says();
    assert.match(outer, /^\S+, [\d.]+ MiB/);
    await page.keyboard.press('Enter');
    assert.match(page.url(), /zoom=/);
    await page.keyboard.press('Escape');
    assert.doesNotMatch(page.url(), /zoom=/);
  }));

test('flame graph: each measure has its figures', () =>
  look('flame', '', async (page) => {
    for (const [name, unit] of [
      ['Peak', /[\d.]+ MiB/],
      ['Lifetime', /iB·s/],
      ['Pinned', /[\d.]+ [KM]iB/],
    ] as const) {
      await page.getByRole('group', { name: 'By', exact: true }).getByRole('button', { name }).click();
      assert.match((await rows(page, /^Sites by/))[0] ?? '', unit, name);
    }
  }));

test('map: the fragmented slab is first, a block says who has it', () =>
  look('map', '', async (page, visit) => {
    const [first] = await rows(page, /The same as a table/);
    assert.match(first ?? '', /^256 B, Slab 1 /);
    const map = page.getByRole('application', { name: /^Map of blocks/ });
    await map.focus();
    await page.keyboard.press('ArrowRight');
    const says = map.getByRole('status');
    for (let i = 0; i < 300 && !(await says.innerText()).includes('buildIndex'); i++) await page.keyboard.press('ArrowRight');
    assert.match(await says.innerText(), /^256 B, .* old, by plant\.\(\*Program\)\.buildIndex/);
    await page.keyboard.press('Enter');
    assert.match(
      await text(page, '.detail'),
      /buildIndex .* Size 256 B Address 0x[0-9a-f]+ Allocated .* Calls .*In a block of 64 KiB of Slab 1, of which [\d.]+ KiB is free .*Its slots 25\d of 256 B/,
    );
    assert.match(page.url(), /in=Slab\+1&at=0x/);
    await page.reload(); // what is shown stands in the URL
    await visit.ready('map');
    assert.match(await text(page, '.detail'), /buildIndex .* Size 256 B Address 0x/);
    await map.focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Enter');
    assert.match(await text(page, '.detail'), /^free, 256 B .*Kept by plant\.\(\*Program\)\.buildIndex/);
    const box = await map.boundingBox();
    assert.ok(box);
    await page.mouse.click(box.x + 4, box.y + 40);
    assert.match(await text(page, '.detail'), /256 B/);
  }));

test('lifetimes: the storm stands out', () =>
  look('lifetimes', '', async (page) => {
    const [storm] = await rows(page, /Of the blocks that were freed/);
    assert.match(storm ?? '', /^plant\.\(\*Program\)\.parseRequest/);
    assert.match(await text(page, '.answer'), /^What stands out plant\.\(\*Program\)\.parseRequest/);
    await page.getByRole('button', { name: 'Its calls, and who frees' }).first().click();
    assert.match(await text(page, '.detail'), /Allocated by plant\.\(\*Program\)\.parseRequest.*Freed by/);
    await page.getByRole('button', { name: 'That are live, by age' }).click();
    const live = await rows(page, /Of the blocks that are live/);
    assert.ok(live.some((row) => row.includes('openSession')));
    for (const row of live.filter((row) => row.includes('parseRequest')))
      assert.match(row, / parser (1?\d|20) [\d.]+ K?i?B /, 'the storm leaves more than what one request has at a time');
  }));

test('leaks: the leak before the growth before the cache, and what is unreachable', () =>
  look('leaks', '', async (page, visit) => {
    await visit.until('the leak is first and only grows', async () =>
      /receiveUpload.*only grows/.test((await rows(page, /most suspicious first/))[0] ?? ''),
    );
    const list = await rows(page, /most suspicious first/);
    const at = (name: string) => list.findIndex((row) => row.includes(name));
    assert.ok(at('openSession') === 1, `growth is not second: ${list.join('\n')}`);
    assert.match(list[at('fillCache')] ?? '', / none 0 B 32 MiB/);
    await page.getByRole('button', { name: 'Look for unreachable blocks' }).click();
    await visit.until('the leak is unreachable', async () => /receiveUpload/.test((await rows(page, /nothing points to/))[0] ?? ''));
    assert.match(await text(page, '#panel'), /[\d,]+ blocks with [\d.]+ MiB: nothing points to them any more\./);
  }));

test('events: failures, search, keys', () =>
  look('events', '', async (page, visit) => {
    assert.match(await text(page, '#panel [role=status]'), /events of [\d,]+ that were observed, the newest last/);
    await page.getByLabel('Kind').selectOption('allocate failed');
    await visit.until('the failures are those of thumbnails', async () =>
      /allocate failed 256 KiB.*thumbnails/.test(await text(page, '.rows tbody tr')),
    );
    await page.locator('.rows').focus();
    await page.keyboard.press('End');
    assert.match(await text(page, '.detail'), /^allocate failed 256 KiB/);
    await page.getByLabel('Kind').selectOption('');
    await page.getByLabel('Search events').fill('sessions');
    await visit.until('only sessions are there', async () => /sessions/.test(await text(page, '.rows tbody tr')));
    await page.getByLabel('Least size').fill('1 MiB');
    await visit.until('nothing is so large', async () => /^0 events of these/.test(await text(page, '#panel [role=status]')));
  }));
