// What the tests of the page share: the program that is looked at, the browser, and what must never happen in it.

import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';

// patience is how long a slow machine may take for what takes some seconds on others: figures that take long are seldom asked for.
export const patience = 300_000;

export const tabs = ['overview', 'timeline', 'flame', 'map', 'lifetimes', 'leaks', 'events'] as const;
export type Tab = (typeof tabs)[number];

// built is the path of a program that .ci/page has built.
export function built(name: 'PLANTED' | 'FILES' | 'ALLOCTRACE'): string {
  const path = process.env[name];
  if (!path) throw new Error(`${name} must be the path of a built program: run .ci/page`);
  return path;
}

// Program is exporters/debugpage/internal/planted, or another that serves a page and prints its URL.
export class Program {
  private constructor(
    private readonly child: ChildProcess,
    readonly url: string,
  ) {}

  static start(...args: string[]): Promise<Program> {
    return Program.run(built('PLANTED'), ...args);
  }

  static async run(path: string, ...args: string[]): Promise<Program> {
    const child = spawn(path, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    for await (const line of createInterface({ input: child.stdout! })) {
      if (line.startsWith('http://')) return new Program(child, line.trim());
    }
    throw new Error(`${path} ended without printing its URL`);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  get address(): string {
    return new URL(this.url).host;
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill();
    await once(this.child, 'exit');
  }
}

export async function launch(): Promise<Browser> {
  const args = ['--disable-gpu', '--disable-background-networking', '--disable-component-update'];
  if (process.getuid?.() === 0) args.push('--no-sandbox'); // Chromium's sandbox refuses root
  return chromium.launch({ executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium', args, timeout: patience });
}

// Visit is a page in the browser, and the errors that it has had.
export class Visit {
  readonly errors: string[] = [];

  private constructor(readonly page: Page) {}

  static async open(browser: Browser, options: BrowserContextOptions = {}): Promise<Visit> {
    const context = await browser.newContext({ viewport: { width: 1400, height: 1000 }, timezoneId: 'UTC', locale: 'en-US', ...options });
    context.setDefaultTimeout(patience); // also of pages that a test opens in it
    const page = await context.newPage();
    const visit = new Visit(page);
    page.on('pageerror', (error) => visit.errors.push(error.stack ?? error.message));
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning' || message.text().startsWith('policy:'))
        visit.errors.push(message.text());
    });
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) =>
        console.log(`policy: ${event.violatedDirective} forbids ${event.blockedURI} ${event.sample}`),
      );
    });
    return visit;
  }

  // show goes to a tab and waits until it has its data.
  async show(url: string, tab: Tab, parameters = ''): Promise<void> {
    const to = `${url}#${tab}${parameters && `?${parameters}`}`;
    if (this.page.url() === to) await this.page.reload();
    else await this.page.goto(to);
    await this.ready(tab);
  }

  async ready(tab: Tab): Promise<void> {
    await this.page.locator(`#panel[aria-labelledby=tab-${tab}][aria-busy=false]`).waitFor();
  }

  // until waits for something that the page shows only after some seconds, such as growth.
  async until(what: string, holds: () => Promise<boolean>): Promise<void> {
    const end = Date.now() + patience;
    while (!(await holds())) {
      if (Date.now() > end)
        assert.fail(`not within ${patience / 1000} s: ${what}; the page shows: ${await this.page.locator('main').innerText()}`);
      await this.page.waitForTimeout(200);
    }
  }

  async close(): Promise<void> {
    await this.page.context().close();
    assert.deepEqual(this.errors, [], 'the console has errors');
  }
}

// text is what an element shows, with its white space made single.
export async function text(page: Page, selector: string): Promise<string> {
  return (await page.locator(selector).first().innerText()).replace(/\s+/g, ' ').trim();
}

// rows are the texts of a table's rows, by its caption, all of one moment: a table that is made anew meanwhile would have the old one's without the
// spaces between cells, as elements have that are not shown.
export async function rows(page: Page, caption: RegExp): Promise<string[]> {
  const list = await page.evaluate((caption) => {
    const table = [...document.querySelectorAll('table')].find((table) => caption.test(table.caption?.textContent ?? ''));
    return [...(table?.tBodies ?? [])].flatMap((body) => [...body.rows].map((row) => row.innerText));
  }, caption);
  return list.map((row) => row.replace(/\s+/g, ' ').trim());
}
