// A page that was saved opens from a file and shows the same.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { Browser } from 'playwright-core';
import { bytes } from '../src/format';
import { launch, Program, rows, tabs, text, Visit } from './browser';

let program: Program, browser: Browser;
const folder = mkdtempSync(join(tmpdir(), 'page-'));

before(async () => {
  [program, browser] = await Promise.all([Program.start(), launch()]);
});
after(async () => {
  await browser?.close();
  await program?.stop();
  rmSync(folder, { recursive: true });
});

test('saved', async () => {
  const live = await Visit.open(browser);
  await live.show(program.url, 'leaks');
  await live.until('the leak has grown by some MiB', async () =>
    /receiveUpload.*\+(\d\d|[2-9])[\d.]* MiB/.test((await rows(live.page, /most suspicious first/))[0] ?? ''),
  );
  const [download] = await Promise.all([live.page.waitForEvent('download'), live.page.getByRole('button', { name: 'Save' }).click()]);
  const file = join(folder, 'saved.html');
  await download.saveAs(file);
  await live.close();

  const answers = JSON.parse(
    /<script type="application\/json" id="saved">(.*?)<\/script>/s.exec(readFileSync(file, 'utf8'))?.[1] ?? '',
  ) as Record<string, any>;
  const visit = await Visit.open(browser);
  const { page } = visit;
  const requests: string[] = [];
  page.on('request', (request) => {
    if (!/^(file|data|blob):/.test(request.url())) requests.push(request.url());
  });
  const url = pathToFileURL(file).href;
  for (const tab of tabs) {
    await visit.show(url, tab);
    assert.doesNotMatch(await text(page, 'main'), /without that|does not answer/, tab);
  }
  assert.match(await text(page, '.status'), /^saved \d{4}-\d\d-\d\d/);

  const { total } = answers['api/snapshot'];
  await visit.show(url, 'overview');
  assert.ok((await text(page, '.figures')).startsWith(`Live ${bytes(total.live)}`), 'the live bytes are the same');
  const leaks = answers['api/leaks'];
  await visit.show(url, 'leaks');
  const [first] = await rows(page, /most suspicious first/);
  assert.match(first ?? '', /^plant\.\(\*Program\)\.receiveUpload/);
  assert.ok(first?.includes(` ${bytes(leaks.live[0])} `), `the leak has other figures: ${first}`);
  await visit.show(url, 'events');
  assert.match(
    await text(page, '#panel [role=status]'),
    new RegExp(`of ${answers['api/events'].all.toLocaleString('en-US')} that were observed`),
  );

  await visit.show(url, 'timeline', 'by=child');
  assert.ok(
    (await rows(page, /What is stacked/)).some((row) => row.startsWith('app/uploads')),
    'the timeline by child is there',
  );
  const timeline = answers['api/timeline?by=site'];
  await visit.show(url, 'timeline', `from=${timeline.begin_us}&to=${timeline.begin_us + timeline.step_us * timeline.total.length}`);
  await visit.until('of a span it is known what is live', async () =>
    /receiveUpload/.test((await rows(page, /allocated in the span/))[0] ?? ''),
  );
  await visit.show(url, 'flame');
  await page.getByLabel('Compared with').selectOption({ index: 1 });
  await visit.until('changes are known', async () => /receiveUpload.*\+/.test((await rows(page, /how that has changed/))[0] ?? ''));

  assert.deepEqual(requests, [], 'it loads from elsewhere');
  await visit.close();
});
