// What is shown is the newest, and what has the focus keeps it, whatever comes late, is made anew or does not come at all.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { launch, patience, Program, rows, text, Visit, type Tab } from './browser';

let program: Program, browser: Browser;

before(async () => {
  [program, browser] = await Promise.all([Program.start(), launch()]);
});
after(async () => {
  await browser?.close();
  await program?.stop();
});

async function look(tab: Tab, check: (page: Page, visit: Visit) => Promise<void>, options = {}): Promise<void> {
  const visit = await Visit.open(browser, options);
  await visit.show(program.url, tab);
  await check(visit.page, visit);
  await visit.close();
}

// refreshed waits until an answer has come once more, and is shown.
async function refreshed(page: Page, name: string): Promise<void> {
  const answer = await page.waitForResponse((response) => response.url().includes(`api/${name}`), { timeout: 4 * patience }); // a slow one is seldom asked for
  await answer.finished();
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50))));
}

const focused = (page: Page) =>
  page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.textContent);

test('map: keys go on from where they were, in a map that was made anew', () =>
  look('map', async (page) => {
    const map = page.getByRole('application', { name: /^Map of blocks/ });
    await map.focus();
    for (let i = 0; i < 3; i++) await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Enter');
    const at = () => /at=0x[0-9a-f]+/.exec(page.url())?.[0];
    const before = at();
    assert.ok(before);
    for (let i = 0; i < 2; i++) await refreshed(page, 'map');
    await page.keyboard.press('Enter');
    assert.equal(at(), before);
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Enter');
    assert.notEqual(at(), before);
    assert.match(await text(page, '.detail'), /of 256 B/);
  }));

test('the skip link leaves the tab that is shown', () =>
  look('leaks', async (page, visit) => {
    await page.keyboard.press('Tab');
    assert.equal(await focused(page), 'Skip to the content');
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'main');
    await visit.ready('leaks');
    assert.match(page.url(), /#leaks$/);
  }));

test('a mark that is not answered is no mark, and the page says so', () =>
  look('leaks', async (page, visit) => {
    await page.route('**/api/mark', (route) => route.abort());
    const alert = () => text(page, '#main > [role=alert]');
    for (const name of ['Mark', 'Count growth from now']) {
      await page.getByRole('button', { name, exact: true }).click();
      await visit.until(`${name} says why`, async () => (await alert()) === 'The program does not answer.');
      await refreshed(page, 'leaks');
      assert.equal(await alert(), 'The program does not answer.', 'that other figures came says nothing of the mark');
      await page.getByRole('tab', { name: 'Events' }).click();
      await visit.ready('events');
      assert.equal(await alert(), '');
      await page.getByRole('tab', { name: 'Leaks' }).click();
      await visit.ready('leaks');
    }
    await page.getByRole('button', { name: 'Mark', exact: true }).click();
    await visit.until('it says why once more', async () => (await alert()) !== '');
    await page.unroute('**/api/mark');
    await page.getByRole('button', { name: 'Count growth from now' }).click();
    await visit.until('what is done is not complained of', async () => (await alert()) === '');
    for (const error of visit.errors.splice(0)) assert.match(error, /^Failed to load resource: net::ERR_FAILED$/);
  }));

test('events: of two choices, the last one is shown', () =>
  look('events', async (page, visit) => {
    let letGo = () => {};
    const held = new Promise<void>((done) => (letGo = done));
    const answered: string[] = [];
    await page.route('**/api/events?n=1*', async (route) => {
      const n = new URL(route.request().url()).searchParams.get('n') ?? '';
      const response = await route.fetch();
      const answer = (await response.json()) as { all: number };
      answer.all = Number(n);
      if (n === '100000') await held;
      await route.fulfill({ response, json: answer });
      answered.push(n);
    });
    await page.getByLabel('How many').selectOption('100000');
    await page.getByLabel('How many').selectOption('1000000');
    await page.waitForTimeout(2000); // in which the second one may be answered, if it is asked for at once
    letGo();
    await visit.until('both were answered', async () => answered.length === 2);
    await visit.until('the last choice is shown', async () => /of 1,000,000 that/.test(await text(page, '#panel [role=status]')));
    await page.evaluate(() => new Promise((done) => setTimeout(done, 200)));
    assert.match(await text(page, '#panel [role=status]'), /of 1,000,000 that/);
  }));

test('events that are missing are told as such', () =>
  look('overview', async (page, visit) => {
    await page.route('**/api/events*', async (route) => {
      const response = await route.fetch();
      const answer = (await response.json()) as { kind: number[]; size: number[]; owner: number[]; error_row: number[] };
      answer.error_row = [];
      const last = answer.kind.length - 1;
      [answer.kind[last], answer.size[last], answer.owner[last]] = [0, 300, 0];
      [answer.kind[last - 1], answer.size[last - 1], answer.owner[last - 1]] = [0, 0, 0];
      await route.fulfill({ response, json: answer });
    });
    await visit.show(program.url, 'events');
    await page.locator('.rows').focus();
    await page.keyboard.press('End');
    assert.match(await text(page, '.detail'), /^missing 300 events Event/);
    assert.match(await text(page, '.rows tr[aria-selected=true]'), /missing 300 events/);
    await page.keyboard.press('ArrowUp');
    assert.match(await text(page, '.detail'), /^missing Event/);
    await page.getByLabel('Least size').fill('12 parsecs');
    assert.match(await text(page, '#panel [role=status]'), /12 parsecs is no size: use one such as 64 KiB\.$/);
  }));

test('a tick whose names could not be had is not lost', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  let failures = 0;
  await page.route('**/api/tables*', (route) => (failures++ < 3 ? route.abort() : route.continue()));
  await page.goto(`${program.url}#timeline?by=site`);
  await visit.until('what no tick tells of again is there', async () =>
    (await rows(page, /What is stacked/)).some((row) => /fillCache.* 32 MiB 32 MiB/.test(row)),
  );
  for (const error of visit.errors.splice(0)) assert.match(error, /^Failed to load resource: net::ERR_FAILED$/);
  await visit.close();
});

test('the button that looks for unreachable blocks keeps the focus', () =>
  look('leaks', async (page) => {
    const button = page.getByRole('button', { name: 'Look for unreachable blocks' });
    await button.focus();
    await page.keyboard.press('Enter');
    await page.locator('table caption', { hasText: 'nothing points to' }).waitFor();
    assert.equal(await focused(page), 'Look for unreachable blocks');
  }));

test('a button of a row keeps the focus where the row moves to', () =>
  look('leaks', async (page) => {
    const button = page.getByRole('button', { name: /^Calls of .*fillCache/ });
    await button.focus();
    const name = await focused(page);
    await page.route('**/api/leaks', async (route) => {
      const response = await route.fetch();
      const answer = (await response.json()) as Record<string, unknown>;
      for (const column of Object.values(answer)) if (Array.isArray(column)) column.reverse();
      await route.fulfill({ response, json: answer });
    });
    await refreshed(page, 'leaks');
    assert.equal(await focused(page), name);
  }));

test('a table stays where it was scrolled to', () =>
  look(
    'lifetimes',
    async (page) => {
      const scrolled = () => page.locator('.scroll').evaluate((table) => table.scrollLeft);
      await page.locator('.scroll').evaluate((table) => (table.scrollLeft = 150));
      assert.equal(await scrolled(), 150);
      await refreshed(page, 'lifetimes');
      assert.equal(await scrolled(), 150);
    },
    { viewport: { width: 320, height: 640 } },
  ));

test('plots that were left take no memory', () =>
  look('events', async (page, visit) => {
    const wire = await page.context().newCDPSession(page);
    const canvases = async () => {
      await wire.send('HeapProfiler.collectGarbage');
      const { result } = await wire.send('Runtime.evaluate', { expression: 'HTMLCanvasElement.prototype' });
      const { objects } = await wire.send('Runtime.queryObjects', { prototypeObjectId: result.objectId as string });
      const length = await wire.send('Runtime.callFunctionOn', {
        objectId: objects.objectId as string,
        functionDeclaration: 'function () { return this.length }',
        returnByValue: true,
      });
      await wire.send('Runtime.releaseObject', { objectId: objects.objectId as string });
      return length.result.value as number;
    };
    const around = async () => {
      await page.getByRole('tab', { name: 'Timeline' }).click();
      await page.locator('.uplot').waitFor();
      await page.getByRole('tab', { name: 'Events' }).click();
      await visit.ready('events');
    };
    for (let i = 0; i < 2; i++) await around();
    const before = await canvases();
    for (let i = 0; i < 8; i++) await around();
    const now = await canvases();
    assert.ok(now < before + 4, `there were ${before} canvases, and there are ${now} after looking at the timeline eight times more`);
  }));
