// The page of a recording and of a black box: what was planted is where a stranger looks first, and what such a file does not have is said.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { Browser, Page, Route } from 'playwright-core';
import { built, launch, Program, rows, tabs, text, Visit, type Tab } from './browser';

const folder = mkdtempSync(join(tmpdir(), 'files-'));
const files = { recording: join(folder, 'a.alloctrace'), box: join(folder, 'a.box') };

let recording: Program, box: Program, browser: Browser;

before(async () => {
  execFileSync(built('FILES'), ['-recording', files.recording, '-box', files.box], { stdio: ['ignore', 'inherit', 'inherit'] });
  [recording, box, browser] = await Promise.all([
    Program.run(built('ALLOCTRACE'), 'serve', files.recording),
    Program.run(built('ALLOCTRACE'), 'serve', files.box),
    launch(),
  ]);
});
after(async () => {
  await browser?.close();
  await Promise.all([recording?.stop(), box?.stop()]);
  rmSync(folder, { recursive: true });
});

// What the tabs of each file show, or say.
type Checks = Record<Tab, (page: Page) => Promise<void>>;

const ofRecording: Checks = {
  overview: async (page) => {
    assert.match(await text(page, '.status'), /^recording of \d/);
    assert.match(
      await text(page, '.answer >> nth=0'),
      /^What grew\? plant\.\(\*Program\)\.receiveUpload \+[\d.]+ MiB plant\.go:\d+ · for uploads · since [\d.]+m?s after the beginning, it now holds [\d.]+ MiB of [\d.]+ MiB .*none of \d+ blocks was released .*plant\.\(\*Program\)\.openSession/,
    );
    assert.match(await text(page, '.answer >> nth=1'), /^Who holds it\? plant\.\(\*Program\)\.fillCache \d\d %.* 32 MiB in 4 blocks/);
    assert.match(await text(page, '.answer >> nth=2'), /^How does it lie\? [\d.]+ [KM]iB free between blocks live [\d.]+ MiB/);
    assert.match(
      await text(page, '.figures'),
      /^Live [\d.]+ MiB in [\d,]+ blocks Peak .*Failures [1-9][\d,]* [1-9][\d,]* allocations Slack/,
    );
    const children = await rows(page, /Proxies and their children/);
    assert.match(children[0] ?? '', /^app [\d.]+ MiB/);
    assert.match(children[1] ?? '', /^cache 32 MiB 4 32 MiB 32 MiB 0$/, 'a limit is not known of a recording');
    assert.match(await text(page, '#panel'), /RSS, as the kernel counts it A recording does not know the resident memory of its process\./);
  },
  timeline: async (page) => {
    const list = await rows(page, /What is stacked/);
    assert.match(list[0] ?? '', /^plant\.\(\*Program\)\.fillCache/);
    assert.ok(
      list.some((row) => /receiveUpload.* [\d.]+ MiB [\d.]+ MiB \+[\d.]+ MiB/.test(row)),
      `the leak does not grow: ${list.join('\n')}`,
    );
    assert.match(list.find((row) => row.includes('parseRequest')) ?? '', / 0 B 10 KiB /, 'what is live at the end is not what was at most');
  },
  flame: async (page) => {
    assert.match((await rows(page, /^Sites by bytes that are live/))[0] ?? '', /^plant\.\(\*Program\)\.fillCache .* 32 MiB/);
    await page.getByRole('group', { name: 'By', exact: true }).getByRole('button', { name: 'Allocated' }).click();
    await page.locator('caption', { hasText: 'were allocated in all' }).waitFor();
    assert.match((await rows(page, /^Sites by bytes that were allocated/))[0] ?? '', /^plant\.\(\*Program\)\.parseRequest/);
    assert.ok(await page.getByRole('group', { name: 'By', exact: true }).getByRole('button', { name: 'Pinned' }).isDisabled());
  },
  map: async (page) => {
    assert.match(await text(page, '#panel'), /is free between blocks; whether it takes memory is not known/);
    const map = page.getByRole('application', { name: /^Map of blocks/ });
    await map.focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Enter');
    assert.match(await text(page, '.detail'), /It is at 0x[0-9a-f]+|Address 0x[0-9a-f]+/);
  },
  lifetimes: async (page) => {
    assert.match((await rows(page, /Of the blocks that were freed/))[0] ?? '', /^plant\.\(\*Program\)\.parseRequest/);
  },
  leaks: async (page) => {
    const list = await rows(page, /most suspicious first/);
    assert.match(list[0] ?? '', /^plant\.\(\*Program\)\.receiveUpload .*only grows/);
    assert.match(list[1] ?? '', /^plant\.\(\*Program\)\.openSession .*grows/);
    assert.doesNotMatch(list.find((row) => row.includes('fillCache')) ?? '', /grows/);
    assert.match(await text(page, '#panel'), /Unreachable This is of a recording: the program that could be asked is not there\./);
    assert.equal(await page.getByRole('button', { name: 'Count growth from now' }).count(), 0);
  },
  events: async (page) => {
    assert.match(await text(page, '#panel [role=status]'), /^10,000 events of [\d,]+ that were observed, the newest last\.$/);
    assert.equal(await page.getByRole('button', { name: 'Show the newest' }).count(), 0);
  },
};

const noHistory = async (page: Page) =>
  assert.equal(
    await text(page, '#panel'),
    'Nothing to show here A black box has one moment and the last events: make a recording to see what came before.',
  );

const ofBox: Checks = {
  overview: async (page) => {
    assert.match(await text(page, '.status'), /^black box of \d/);
    assert.match(await text(page, '.answer >> nth=0'), /^What grew\? Not known A black box has one moment/);
    assert.match(await text(page, '.answer >> nth=1'), /^Who holds it\? plant\.\(\*Program\)\.fillCache \d\d %.* 32 MiB in 4 blocks/);
    assert.match(await text(page, '.answer >> nth=2'), /^How does it lie\? Not known A black box/);
    assert.match((await rows(page, /Proxies and their children/))[0] ?? '', /^app [\d.]+ MiB/);
  },
  timeline: noHistory,
  flame: async (page) => {
    const list = await rows(page, /^Sites by bytes that are live/);
    assert.match(list[0] ?? '', /^plant\.\(\*Program\)\.fillCache/);
    assert.match(list[1] ?? '', /^plant\.\(\*Program\)\.receiveUpload/);
  },
  map: noHistory,
  lifetimes: noHistory,
  leaks: noHistory,
  events: async (page) => {
    assert.match(await text(page, '#panel [role=status]'), /events of [\d,]+ that were observed, the newest last\.$/);
    await page.getByLabel('Kind').selectOption('allocate failed');
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    assert.match(await text(page, '.rows tbody tr'), /allocate failed 256 KiB.*thumbnails/, 'a shorter list is drawn at once');
  },
};

for (const [name, of, checks] of [
  ['a recording', () => recording, ofRecording],
  ['a black box', () => box, ofBox],
] as const) {
  test(`${name}: every tab shows what it has, or says why it has nothing`, async () => {
    const visit = await Visit.open(browser);
    for (const tab of tabs) {
      await visit.show(of().url, tab);
      assert.equal(await text(visit.page, '#main > [role=alert]'), '', tab);
      await checks[tab](visit.page);
    }
    await visit.close();
  });

  test(`${name}: what is saved of it opens, and says the same`, async () => {
    const live = await Visit.open(browser);
    await live.show(of().url, 'overview');
    const answers = await text(live.page, '.answers');
    const [download] = await Promise.all([live.page.waitForEvent('download'), live.page.getByRole('button', { name: 'Save' }).click()]);
    const file = join(folder, `${name}.html`);
    await download.saveAs(file);
    await live.close();
    const visit = await Visit.open(browser);
    for (const tab of tabs) {
      await visit.show(pathToFileURL(file).href, tab);
      assert.equal(await text(visit.page, '#main > [role=alert]'), '', tab);
      assert.doesNotMatch(await text(visit.page, 'main'), /without that/, tab);
      if (tab === 'overview') assert.equal(await text(visit.page, '.answers'), answers);
    }
    await visit.close();
  });
}

test('a span of a recording: what was allocated there, with seconds that tell its ends apart', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  await visit.show(recording.url, 'timeline', 'from=500000&to=504000');
  await visit.until('the span has a sentence', async () => /allocated there (is|are) live at its end/.test(await text(page, '#panel')));
  const [, from, to] = /From ([\d:.]+) to ([\d:.]+), 4ms: /.exec(await text(page, '#panel')) ?? [];
  assert.ok(from && to && from !== to, `from ${from} to ${to}`);
  const typed = await page
    .locator('input[type=number]')
    .evaluateAll((list) => list.map((input) => Number((input as HTMLInputElement).value)));
  assert.ok(Math.abs(typed[1]! - typed[0]! - 0.004) < 0.0011, `the fields say ${typed.join(' and ')}`);
  await visit.close();
});

// held has answers to a URL wait until they are let go.
async function held(page: Page, url: RegExp): Promise<{ asked: Promise<void>; letGo(): Promise<void> }> {
  let route: Route | null = null;
  let came = () => {};
  const asked = new Promise<void>((done) => (came = done));
  await page.route(url, async (one) => {
    if (route) return one.continue();
    route = one;
    came();
  });
  return {
    asked,
    async letGo() {
      const answer = page.waitForResponse(url);
      await route?.continue();
      await (await answer).finished();
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50))));
    },
  };
}

test('a choice that was made meanwhile is what is shown, whatever comes late', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  await visit.show(recording.url, 'timeline', 'by=site');
  const slow = await held(page, /api\/timeline\?by=region/);
  await page.getByRole('button', { name: 'Region' }).click();
  await slow.asked;
  await page.getByRole('button', { name: 'Child' }).click();
  await visit.until('it is by child', async () => (await rows(page, /What is stacked/)).some((row) => row.startsWith('uploads')));
  await slow.letGo();
  assert.ok(
    (await rows(page, /What is stacked/)).some((row) => row.startsWith('uploads')),
    'what was asked for before is shown',
  );

  await visit.show(recording.url, 'flame');
  const from = page.getByLabel('Compared with');
  const early = await from.locator('option').nth(2).getAttribute('value'); // after a quarter
  const moment = await held(page, new RegExp(`api/snapshot\\?at=${early}$`));
  await from.selectOption({ index: 2 });
  await moment.asked;
  await from.selectOption({ index: 4 });
  const grown = async () => (await rows(page, /how that has changed/)).find((row) => row.includes('receiveUpload')) ?? '';
  await visit.until('the last quarter is shown', async () => (await grown()) !== '');
  const before = await grown();
  await moment.letGo();
  assert.equal(await grown(), before);
  await visit.close();
});

test('a difference has the blocks that were live when it ends', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  await visit.show(recording.url, 'flame');
  const blocks = async (caption: RegExp) => {
    const row = (await rows(page, caption)).find((row) => row.includes('receiveUpload')) ?? '';
    return Number((/ ([\d,]+) Calls$/.exec(row)?.[1] ?? '').replace(/,/g, ''));
  };
  const all = await blocks(/^Sites by bytes that are live$/);
  await page.getByLabel('Compared with').selectOption({ index: 1 }); // the beginning
  await visit.until('there is a difference', async () => (await blocks(/how that has changed/)) === all);
  const until = page.getByLabel('And', { exact: true });
  let most = 0;
  for (const quarter of [1, 2, 3]) {
    await until.selectOption({ index: 1 + quarter });
    await visit.until(`after ${quarter} quarters there are more blocks than a quarter before, and fewer than at the end`, async () => {
      const now = await blocks(/how that has changed/);
      if (now <= most || now >= all) return false;
      most = now;
      return true;
    });
  }
  await visit.close();
});

test('what was not answered once is asked for again', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  let failures = 0;
  await page.route(/api\/timeline/, (route) => (failures++ === 0 ? route.abort() : route.continue()));
  await visit.show(recording.url, 'timeline', 'by=child');
  assert.equal(await text(page, '#main > [role=alert]'), 'The program does not answer.');
  await page.getByRole('tab', { name: 'Leaks' }).click();
  await visit.ready('leaks');
  await page.getByRole('tab', { name: 'Timeline' }).click();
  await visit.until('the timeline is there', async () => (await rows(page, /What is stacked/)).some((row) => row.startsWith('uploads')));
  assert.equal(await text(page, '#main > [role=alert]'), '');
  assert.match(visit.errors.splice(0).join('\n'), /^Failed to load resource: net::ERR_FAILED$/);
  await visit.close();
});
