// 10^6 events, 10^5 live blocks, 1,000 sites: what the page takes to load, how many frames a second it draws while one scrolls or walks, what
// is sent, and what that costs the program. The figures are printed; they are for a quiet machine. What is asserted holds on a busy one too.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { launch, Program, Visit, type Tab } from './browser';

let program: Program, browser: Browser;

before(async () => {
  [program, browser] = await Promise.all([Program.start('-scale', '-step', '1h'), launch()]);
});
after(async () => {
  await browser?.close();
  await program?.stop();
});

const looks: [Tab, string, RegExp][] = [
  ['overview', '', /Who holds it/],
  ['timeline', '', /more/],
  ['flame', '', /plant\.left/],
  ['map', '', /not sampled|100,|live/],
  ['lifetimes', 'of=live', /plant\.(left|right)/],
  ['leaks', '', /plant\.(left|right)/],
  ['events', 'n=1000000', /1,0\d\d,\d{3} events|1,000,000 events/],
];

test('10^6 events, 10^5 blocks, 1,000 sites', async () => {
  const visit = await Visit.open(browser);
  const { page } = visit;
  const alone = await share(() => new Promise((done) => setTimeout(done, 5000)));
  const wire = await page.context().newCDPSession(page);
  let sent = 0;
  await wire.send('Network.enable');
  wire.on('Network.loadingFinished', (event) => (sent += event.encodedDataLength));
  await page.goto('about:blank');
  const empty = await frames(page, 1000);
  console.log(`${'an empty page'.padEnd(14)} ${' '.repeat(54)} ${empty.toFixed(0).padStart(3)} frames/s`);
  for (const [tab, parameters, has] of looks) {
    sent = 0;
    const began = Date.now();
    const usable = page.locator(`#panel[aria-labelledby=tab-${tab}] :is(.figures dd, button, select)`).first().waitFor();
    const shown = visit.show(program.url, tab, parameters);
    await usable;
    const first = Date.now() - began;
    await shown;
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0))));
    const took = Date.now() - began;
    const drawn = await frames(page, 3000);
    const elements = await page.locator('*').count();
    console.log(
      `${tab.padEnd(14)} ${String(first).padStart(5)} ms to use ${String(took).padStart(6)} ms to load ${(sent / 1024).toFixed(0).padStart(6)} KiB sent ${drawn.toFixed(0).padStart(7)} frames/s ${String(elements).padStart(6)} elements`,
    );
    assert.match(await page.locator('main').innerText(), has, tab);
    assert.ok(elements < 4000, `${tab} has ${elements} elements`);
    assert.ok(drawn > empty / 12, `${tab}: ${drawn.toFixed(1)} frames a second, and an empty page has ${empty.toFixed(1)}`);
  }
  await visit.show(program.url, 'overview');
  const looked = await share(() => page.waitForTimeout(15_000));
  await visit.close();
  console.log(`the program took ${(100 * looked).toFixed(1)} % of a processor while one looked, and ${(100 * alone).toFixed(1)} % before`);
});

// frames is how many are drawn in a second while the page is scrolled and the mouse moves over what is drawn.
async function frames(page: Page, ms: number): Promise<number> {
  return page.evaluate(async (ms) => {
    const scrolled = document.querySelector('.map, .rows') ?? document.scrollingElement ?? document.body;
    const drawn = document.querySelector('.u-over, .plot');
    let frames = 0,
      step = 150;
    const began = performance.now();
    while (performance.now() - began < ms) {
      await new Promise(requestAnimationFrame);
      const before = scrolled.scrollTop;
      scrolled.scrollTop += step;
      if (scrolled.scrollTop === before) step = -step;
      const box = drawn?.getBoundingClientRect();
      if (box)
        drawn?.dispatchEvent(
          new MouseEvent('mousemove', {
            bubbles: true,
            clientX: box.left + ((frames * 13) % box.width),
            clientY: box.top + ((frames * 7) % box.height),
          }),
        );
      frames++;
    }
    return (1000 * frames) / (performance.now() - began);
  }, ms);
}

// share is the part of a processor that the program takes meanwhile.
async function share(meanwhile: () => Promise<unknown>): Promise<number> {
  const ticks = () => {
    const fields = readFileSync(`/proc/${program.pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return Number(fields[11]) + Number(fields[12]); // hundredths of a second, in and below the kernel's interface
  };
  const before = ticks(),
    began = Date.now();
  await meanwhile();
  return (ticks() - before) / 100 / ((Date.now() - began) / 1000);
}
