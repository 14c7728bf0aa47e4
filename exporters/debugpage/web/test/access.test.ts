// The page can be used by keyboard, by a screen reader, large, in light and dark; and it says so when the program is gone.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import type { Browser } from 'playwright-core';
import { launch, Program, tabs, text, Visit } from './browser';

const axe = readFileSync(createRequire(`${process.env['WEB']}/package.json`).resolve('axe-core/axe.min.js'), 'utf8');

let program: Program, browser: Browser;

before(async () => {
  [program, browser] = await Promise.all([Program.start(), launch()]);
});
after(async () => {
  await browser?.close();
  await program?.stop();
});

interface Axe {
  run(options: object): Promise<{ violations: { id: string; help: string; nodes: { html: string; failureSummary: string }[] }[] }>;
}

for (const colorScheme of ['light', 'dark'] as const) {
  test(`axe finds nothing, ${colorScheme}`, async () => {
    const visit = await Visit.open(browser, { colorScheme });
    for (const tab of tabs) {
      await visit.show(program.url, tab);
      if (tab === 'leaks') {
        await visit.page.getByRole('button', { name: 'Look for unreachable blocks' }).click();
        await visit.page.locator('table caption', { hasText: 'nothing points to' }).waitFor();
      }
      await visit.page.evaluate(axe);
      const { violations } = await visit.page.evaluate(() =>
        (window as unknown as { axe: Axe }).axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }),
      );
      const told = violations.map(
        ({ id, help, nodes }) =>
          `${id}: ${help}\n${nodes.map(({ html, failureSummary }) => `  ${html.slice(0, 200)}\n  ${failureSummary}`).join('\n')}`,
      );
      assert.deepEqual(told, [], tab);
    }
    await visit.close();
  });
}

// Zoomed to twice the size, a window of 1280 by 1024 has as much room as one of 640 by 512; and 320 is what WCAG asks for.
for (const [width, height] of [
  [640, 512],
  [320, 640],
] as const) {
  test(`nothing is cut off at ${width} pixels`, async () => {
    const visit = await Visit.open(browser, { viewport: { width, height }, deviceScaleFactor: 2 });
    for (const tab of tabs) {
      await visit.show(program.url, tab);
      const cut = await visit.page.evaluate(() => {
        const found: string[] = [];
        const room = document.documentElement.clientWidth;
        if (document.documentElement.scrollWidth > room) found.push(`the page is ${document.documentElement.scrollWidth} wide`);
        const scrolls = (element: Element) => element.closest('.scroll, .rows, .map, .hidden, pre') !== null;
        for (const caption of document.querySelectorAll('.scroll caption:not(.hidden)')) {
          const { right } = caption.getBoundingClientRect();
          if (right > room) found.push(`the caption ${caption.textContent} goes to ${right}`);
        }
        for (const element of document.querySelectorAll<HTMLElement>('body *')) {
          if (scrolls(element) || element.closest('.skip, .tip, .u-wrap') || !element.checkVisibility()) continue;
          const box = element.getBoundingClientRect();
          const name = `${element.tagName} ${element.className} ${element.textContent?.slice(0, 40)}`;
          if (box.right > room + 1 || box.left < -1) found.push(`${name} goes from ${box.left} to ${box.right}`);
          if (
            getComputedStyle(element).overflow === 'hidden' &&
            element.scrollWidth > element.clientWidth + 1 &&
            element.textContent !== ''
          )
            found.push(`${name} has its text cut off`);
        }
        return found;
      });
      assert.deepEqual(cut, [], tab);
    }
    await visit.close();
  });
}

test('keyboard only: skip link, tabs, what is in them', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  await visit.show(program.url, 'overview');
  const focused = () =>
    page.evaluate(() => {
      const element = document.activeElement as HTMLElement;
      const style = getComputedStyle(element);
      return {
        name: element.getAttribute('aria-label') ?? element.innerText,
        id: element.id,
        tag: element.tagName,
        outlined: style.outlineStyle !== 'none' && Number.parseFloat(style.outlineWidth) > 0,
      };
    });
  await page.keyboard.press('Tab');
  assert.equal((await focused()).name, 'Skip to the content');
  await page.keyboard.press('Enter');
  assert.equal((await focused()).id, 'main');
  await page.reload();
  await visit.ready('overview');
  const names: string[] = [];
  for (let i = 0; i < 12 && (await focused()).id !== 'tab-overview'; i++) {
    await page.keyboard.press('Tab');
    const at = await focused();
    names.push(at.name);
    assert.ok(at.outlined, `one does not see that ${at.tag} ${at.name} has the focus`);
  }
  assert.equal((await focused()).id, 'tab-overview', `Tab does not reach the tabs: ${names.join(', ')}`);
  for (const tab of [...tabs.slice(1), 'overview' as const]) {
    await page.keyboard.press('ArrowRight');
    await visit.ready(tab);
    assert.equal((await focused()).id, `tab-${tab}`);
    assert.match(page.url(), new RegExp(`#${tab}`));
  }
  await page.keyboard.press('End');
  await visit.ready('events');
  // From the tabs on, Tab reaches all that can be used, without a trap, and shows where it is.
  const seen = new Set<string>();
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press('Tab');
    const at = await focused();
    if (at.tag === 'BODY') break;
    assert.ok(at.outlined, `one does not see that ${at.tag} ${at.name} has the focus`);
    seen.add(at.name);
  }
  for (const name of ['How many', 'Kind', 'Least size', 'Search events', 'Show the newest'])
    assert.ok(seen.has(name), `${name} is not reached: ${[...seen].join(', ')}`);
  await visit.close();
});

test('what has the focus keeps it while the figures change', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  await visit.show(program.url, 'overview');
  await visit.until('the map was read', async () => (await text(page, '.answer >> nth=2')).includes('lies idle'));
  await page.getByRole('button', { name: 'Map of every block' }).focus();
  const before = await text(page, '.figures');
  await visit.until('the figures are others', async () => (await text(page, '.figures')) !== before);
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Map of every block');
  await visit.close();
});

test('the colours are those of the system, until others are chosen', async () => {
  const visit = await Visit.open(browser, { colorScheme: 'dark' });
  const { page } = visit;
  const theme = () => page.evaluate(() => document.documentElement.dataset['theme']);
  await visit.show(program.url, 'overview');
  assert.equal(await theme(), 'dark');
  await page.emulateMedia({ colorScheme: 'light' });
  await visit.until('it is light', async () => (await theme()) === 'light');
  await page.getByLabel('Colours').selectOption('Dark');
  assert.equal(await theme(), 'dark');
  await page.reload();
  await visit.ready('overview');
  assert.equal(await theme(), 'dark');
  await visit.close();
});

test('with the colours of a system of high contrast one sees what is chosen', async () => {
  const visit = await Visit.open(browser, { forcedColors: 'active' });
  await visit.show(program.url, 'map');
  const different = (chosen: string, other: string, property: 'borderBottomColor' | 'backgroundColor') =>
    visit.page.evaluate(
      ([chosen, other, property]) => {
        const of = (selector: string) => getComputedStyle(document.querySelector(selector) as Element)[property as 'backgroundColor'];
        return of(chosen as string) !== of(other as string);
      },
      [chosen, other, property],
    );
  assert.ok(await different('[role=tab][aria-selected=true]', '[role=tab][aria-selected=false]', 'borderBottomColor'), 'the tab');
  assert.ok(await different('.segments [aria-pressed=true]', '.segments [aria-pressed=false]', 'backgroundColor'), 'the choice');
  await visit.show(program.url, 'events');
  await visit.page.locator('.rows').focus();
  await visit.page.keyboard.press('End');
  assert.ok(await different('.rows tr[aria-selected=true] td', '.rows tr[aria-selected=false] td', 'backgroundColor'), 'the row');
  await visit.close();
});

test('nothing moves for those who want that', async () => {
  const visit = await Visit.open(browser, { reducedMotion: 'reduce' });
  await visit.show(program.url, 'overview');
  const moving = await visit.page.evaluate(() =>
    [...document.querySelectorAll('*')]
      .filter((element) => getComputedStyle(element).transitionDuration !== '0s' || getComputedStyle(element).animationName !== 'none')
      .map((element) => element.className),
  );
  assert.deepEqual(moving, []);
  await visit.close();
});

test('names are shown as text', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  const evil = '<img src=x onerror="document.title=\'owned\'">';
  await page.route('**/api/tables*', async (route) => {
    const response = await route.fetch();
    const tables = (await response.json()) as { texts: string[] };
    tables.texts = tables.texts.map((name) => (name === 'app' || name.includes('receiveUpload') ? name + evil : name));
    await route.fulfill({ response, json: tables });
  });
  for (const tab of tabs) {
    await visit.show(program.url, tab);
    assert.equal(await page.locator('img').count(), 0);
    assert.doesNotMatch(await page.title(), /owned/);
  }
  await visit.show(program.url, 'overview');
  assert.ok((await text(page, 'main')).includes(evil));
  await visit.close();
});

test('a tab without data says what to switch on', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  const sentence = 'Switch on a profile: alloctrace.WithHooks(heapprofile.New(heapprofile.Options{}))';
  await page.route('**/api/page', async (route) => {
    const response = await route.fetch();
    const answer = (await response.json()) as { tabs: Record<string, string> };
    answer.tabs['flame'] = sentence;
    await route.fulfill({ response, json: answer });
  });
  await visit.show(program.url, 'flame');
  assert.match(await text(page, '#panel'), /^Nothing to show here yet Switch on a profile/);
  assert.equal(await page.locator('#panel code').innerText(), 'alloctrace.WithHooks(heapprofile.New(heapprofile.Options{}))');
  assert.equal(await page.locator('#tab-flame').innerText(), 'Flame graph (off)');
  await visit.close();
});

test('the page says that the program is gone, and goes on when another is there', async () => {
  const first = await Program.start();
  const visit = await Visit.open(browser);
  const { page } = visit;
  await visit.show(first.url, 'timeline', 'by=child&from=0&to=1000000');
  await visit.until('it is live', async () => (await text(page, '.status')) === 'live');
  const before = await text(page, '.who');
  await first.stop();
  await visit.until('it is lost', async () => (await text(page, '.status')).startsWith('connection lost'));
  const second = await Program.start('-addr', first.address);
  await visit.until(
    'another program is shown',
    async () => (await page.locator('.status[data-state=live]').count()) === 1 && (await text(page, '.who')) !== before,
  );
  await visit.ready('timeline');
  assert.match(page.url(), /#timeline\?by=child$/, 'moments of the first program are those of the second');
  const unexpected = visit.errors.splice(0).filter((error) => !/ERR_|net::|Failed to load/.test(error)); // what the browser itself says of a lost connection
  assert.deepEqual(unexpected, []);
  await visit.close();
  await second.stop();
});
