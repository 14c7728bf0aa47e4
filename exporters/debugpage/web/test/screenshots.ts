// Photographs the page of the planted program: node screenshots.mjs FOLDER, by .ci/page screenshots.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { launch, Program, rows, Visit, type Tab } from './browser';

const [folder] = process.argv.slice(2);
if (!folder) throw new Error('node screenshots.mjs FOLDER: name the folder that the pictures go to');

interface Picture {
  tab: Tab;
  name?: string;
  parameters?: string;
  dark?: boolean;
  height: number;
  prepare?: (page: Page, visit: Visit) => Promise<void>;
}

const pictures: Picture[] = [
  {
    tab: 'overview',
    height: 1040,
    prepare: (_, visit) =>
      visit.until('the map was read', async () => (await visit.page.locator('.answer').last().innerText()).includes('lies idle')),
  },
  {
    tab: 'overview',
    name: 'dark',
    dark: true,
    height: 1040,
    prepare: (_, visit) =>
      visit.until('the map was read', async () => (await visit.page.locator('.answer').last().innerText()).includes('lies idle')),
  },
  {
    tab: 'timeline',
    height: 1000,
    prepare: async (page, visit) => {
      const box = await page.locator('.u-over').boundingBox();
      if (!box) throw new Error('the timeline has no plot');
      await page.mouse.move(box.x + box.width * 0.45, box.y + 20);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.7, box.y + 150, { steps: 5 });
      await page.mouse.up();
      await visit.until('the span has rows', async () => (await rows(page, /allocated in the span/)).length > 0);
      await page.mouse.move(box.x + box.width * 0.6, box.y + 150);
    },
  },
  { tab: 'flame', height: 900, prepare: (page) => page.getByRole('application').hover({ position: { x: 300, y: 74 } }) },
  {
    tab: 'map',
    parameters: 'by=site',
    height: 1000,
    prepare: async (page, visit) => {
      const map = page.getByRole('application');
      await map.focus();
      const says = map.getByRole('status');
      await visit.until('a block of the index is reached', async () => {
        await page.keyboard.press('ArrowRight');
        return (await says.innerText()).includes('buildIndex');
      });
      await page.keyboard.press('Enter');
      await page.evaluate(() => scrollTo(0, 0));
    },
  },
  { tab: 'lifetimes', height: 620 },
  {
    tab: 'leaks',
    height: 900,
    prepare: async (page, visit) => {
      await page.getByRole('button', { name: 'Look for unreachable blocks' }).click();
      await visit.until('the leak is unreachable', async () => (await rows(page, /nothing points to/)).length > 0);
    },
  },
  {
    tab: 'events',
    height: 800,
    prepare: async (page) => {
      await page.locator('.rows').focus();
      await page.keyboard.press('End');
    },
  },
];

const program = await Program.start(),
  browser = await launch();
try {
  for (const dark of [false, true]) {
    const visit = await Visit.open(browser, { viewport: { width: 1200, height: 900 }, colorScheme: dark ? 'dark' : 'light' });
    await visit.show(program.url, 'timeline');
    await visit.until('there is something to be seen', async () =>
      /receiveUpload.*\+(\d\d\d|[2-9]\d)[\d.]* MiB/.test((await rows(visit.page, /What is stacked/)).join('\n')),
    );
    for (const picture of pictures.filter((picture) => (picture.dark ?? false) === dark)) {
      await visit.page.setViewportSize({ width: 1200, height: picture.height });
      await visit.show(program.url, picture.tab, picture.parameters);
      await picture.prepare?.(visit.page, visit);
      const file = join(folder, `page-${picture.name ?? picture.tab}.png`);
      writeFileSync(file, await visit.page.screenshot());
      console.log(file);
    }
    await visit.close();
  }
} finally {
  await browser.close();
  await program.stop();
}
