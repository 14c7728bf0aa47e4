// Several pages of a browser at once, and what stands twice on a page.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { launch, patience, Program, text, Visit } from './browser';

let program: Program, browser: Browser;

before(async () => {
  [program, browser] = await Promise.all([Program.start(), launch()]);
});
after(async () => {
  await browser?.close();
  await program?.stop();
});

// Chromium has six connections to a host by HTTP/1.1, and keeps a stream of each page in one of them.
test('eight pages of a browser are live at once, and all have answers', async (t) => {
  const visit = await Visit.open(browser);
  const pages = [visit.page];
  for (let n = 1; n <= 8; n++)
    await t.test(`page ${n} is live, and has two readings`, async () => {
      const page = n === 1 ? visit.page : await visit.page.context().newPage();
      await page.goto(`${program.url}#timeline?by=child`);
      await page.locator('.status[data-state=live]').waitFor();
      await page.locator('#panel[aria-labelledby=tab-timeline][aria-busy=false]').waitFor();
      await page.locator('.uplot').first().waitFor();
      if (n > 1) pages.push(page);
    });
  const [first, second, last] = [pages[0]!, pages[1]!, pages[7]!];
  await t.test('all go on', async () => {
    for (const page of pages) await goesOn(visit, page);
  });
  await t.test('one that stops for a while has the others go on', async () => {
    await first.getByRole('button', { name: 'Pause' }).click();
    await goesOn(visit, second);
    await goesOn(visit, last);
  });
  await t.test('it is live again when it goes on itself', async () => {
    await first.getByRole('button', { name: 'Go on' }).click();
    await first.locator('.status[data-state=live]').waitFor();
    await goesOn(visit, first);
  });
  await visit.close();
});

// goesOn waits until the figures of a page have changed.
async function goesOn(visit: Visit, page: Page): Promise<void> {
  const now = () => page.locator('tbody tr').first().innerText();
  const before = await now();
  await visit.until('a page goes on', async () => (await now()) !== before);
}

test('a browser without shared workers has a stream of each page', async () => {
  const visit = await Visit.open(browser);
  await visit.page.addInitScript(() => Reflect.deleteProperty(window, 'SharedWorker'));
  await visit.show(program.url, 'overview');
  await visit.until('it is live', async () => (await text(visit.page, '.status')) === 'live');
  await visit.close();
});

test('a worker that cannot be had is done without', async () => {
  const visit = await Visit.open(browser);
  await visit.page.addInitScript(() => {
    const { SharedWorker } = window;
    Object.assign(window, { SharedWorker: new Proxy(SharedWorker, { construct: (of, [, name]) => new of('missing.js', name as string) }) });
  });
  await visit.show(program.url, 'overview');
  await visit.until('it is live', async () => (await text(visit.page, '.status')) === 'live');
  await visit.close();
});

test('what stands twice on the overview is the same, at each moment', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  await visit.show(program.url, 'overview');
  await visit.until('there are several ticks', async () => (await page.locator('.uplot').count()) > 0);
  const different = await page.evaluate(async (patience) => {
    const read = () => {
      const figures = [...document.querySelectorAll('.figure')].map((figure) =>
        [...figure.querySelectorAll('dt, dd')].map((part) => part.childNodes[0]?.textContent),
      );
      const figure = (name: string) => figures.find(([is]) => is === name)?.[1];
      const table = [...document.querySelectorAll('table')].find((table) => table.caption?.textContent === 'Proxies and their children');
      const columns = [...(table?.tHead?.rows[0]?.cells ?? [])].map((cell) => cell.textContent);
      const cell = (name: string) => table?.tBodies[0]?.rows[0]?.cells[columns.indexOf(name)]?.textContent;
      return ['Live', 'Peak', 'Failures'].map((name) => `${name}: ${figure(name)}, ${cell(name)}`);
    };
    const found: string[] = [];
    const seen = new Set<string>();
    const end = performance.now() + patience; // ticks are seldom where one takes long
    for (let i = 0; i < 80 || (seen.size < 2 && performance.now() < end); i++) {
      await new Promise((done) => setTimeout(done, 100));
      const all = read();
      seen.add(String(all));
      found.push(...all.filter((line) => new Set(line.replace(/^.*?: /, '').split(', ')).size !== 1));
    }
    return { found, seen: seen.size };
  }, patience);
  assert.deepEqual(different.found.slice(0, 5), []);
  assert.ok(different.seen > 1, 'nothing changed meanwhile');
  await visit.close();
});
