// The page: its head, its tabs, and what keeps them up to date.

import { api, isSaved, savePage } from './api';
import { isLive, timeOf, type Context, type Render, type View } from './context';
import { announce, h, replace, text } from './dom';
import { bytes, clock, day, duration, legible } from './format';
import { History } from './history';
import { State, tabs } from './state';
import { sentence } from './parts';
import { Stream, type Connection } from './stream';
import { Tables } from './tables';
import { eventsTab } from './tabs/events';
import { flameTab } from './tabs/flame';
import { leaksTab } from './tabs/leaks';
import { lifetimesTab } from './tabs/lifetimes';
import { mapTab } from './tabs/map';
import { overview } from './tabs/overview';
import { timelineTab } from './tabs/timeline';
import { Colours, onTheme, setTheme, theme, type Theme } from './theme';
import type { By, Page, Tab, Tick, Timeline } from './types';

const renders: Record<Tab, Render> = {
  overview,
  timeline: timelineTab,
  flame: flameTab,
  map: mapTab,
  lifetimes: lifetimesTab,
  leaks: leaksTab,
  events: eventsTab,
};

const everyMS = 5000; // a tab that is looked at is refreshed so often, and less often if that takes long

class App {
  private view: View | null = null; // of the tab that is shown, if there is data for it
  private readonly main = h('main', { id: 'main', tabindex: '-1' });
  private readonly panel = h('div', { role: 'tabpanel', id: 'panel', tabindex: '-1' });
  private readonly tablist = h('div', { class: 'tabs', role: 'tablist', 'aria-label': 'Views' });
  private readonly status = h('span', { class: 'status' });
  private readonly age = h('span', { class: 'age' });
  private readonly notes = h('div');
  private readonly problem = h('div', { role: 'alert' });
  private refreshing: View | null = null; // that waits for its data
  private running: Promise<boolean> = Promise.resolve(true); // the refresh of it
  private again = false; // it is to have newer data than what it waits for
  private next = 0;
  private stays = false; // what is complained of
  private paused = false;
  private stream: Stream | null = null;
  private ticked = Promise.resolve(); // once the last tick was taken in: each says what has changed since the one before
  private readonly awaiting: (() => void)[] = []; // the next tick

  constructor(
    private readonly context: Context,
    root: HTMLElement,
  ) {
    replace(root, this.head(), h('nav', { class: 'views', 'aria-label': 'Views' }, this.tablist, this.age), this.main);
    this.main.append(this.notes, this.problem, this.panel);
    for (const note of context.page.notes ?? []) this.notes.append(h('p', { class: 'note' }, note));
    replace(
      this.tablist,
      tabs.map(({ id, name }) =>
        h(
          'button',
          {
            type: 'button',
            role: 'tab',
            id: `tab-${id}`,
            'aria-controls': 'panel',
            on: { click: () => context.state.go(id), keydown: (event: KeyboardEvent) => this.tabKey(event, id) },
          },
          name,
          this.hasData(id) ? null : h('span', { class: 'empty' }, ' (off)'),
        ),
      ),
    );
    context.refresh = () => this.refresh();
    context.complain = (reason, stays) => this.complain(reason.message, stays);
    context.settle = () => this.settle();
    context.state.onChange(() => this.show());
    onTheme(() => this.view?.redraw?.());
    document.querySelector('.skip')?.addEventListener('click', (event) => {
      event.preventDefault(); // the fragment says which tab is shown
      this.main.focus();
    });
    if (isLive(context)) {
      this.stream = new Stream(
        context.page.id,
        (tick) => (this.ticked = this.ticked.then(() => this.tick(tick)).catch(context.complain)),
        (connection) => this.say(connection),
      );
      setInterval(() => this.refreshIfDue(), 500);
    }
    this.show();
  }

  private hasData(tab: Tab): boolean {
    return (this.context.page.tabs[tab] ?? '') === '';
  }

  private head(): HTMLElement {
    const { page } = this.context;
    const what =
      page.mode === 'saved'
        ? `saved ${day(timeOf(this.context, page.now_us))} ${clock(timeOf(this.context, page.now_us))}`
        : page.mode === 'live'
          ? 'connecting'
          : `${page.mode === 'blackbox' ? 'black box' : 'recording'} of ${duration(page.now_us - page.first_us)}`;
    text(this.status, what);
    const who = [
      page.program !== page.title && page.program,
      page.pid > 0 && `process ${page.pid}`,
      page.go,
      page.rate > 1 && `one block in ${bytes(page.rate)} is sampled`,
    ]
      .filter(Boolean)
      .join(' · ');
    const themes: [Theme, string][] = [
      ['auto', 'System colours'],
      ['light', 'Light'],
      ['dark', 'Dark'],
    ];
    const colours = h(
      'select',
      { 'aria-label': 'Colours', on: { change: () => setTheme(colours.value as Theme) } },
      themes.map(([value, name]) => h('option', { value }, name)),
    );
    colours.value = theme();
    return h(
      'header',
      { class: 'top' },
      h(
        'div',
        { class: 'who' },
        h('h1', null, legible(page.title)),
        h('span', { class: 'brand' }, 'off-heap memory, by alloctrace'),
        who && h('span', { class: 'quiet' }, who),
      ),
      h(
        'div',
        { class: 'actions' },
        this.status,
        isLive(this.context) && this.pauseButton(),
        isLive(this.context) &&
          h(
            'button',
            {
              type: 'button',
              title: 'Count growth from now on, and let the flame graph show what changes',
              on: { click: () => void this.mark().catch((reason: Error) => this.complain(reason.message, true)) },
            },
            'Mark',
          ),
        !isSaved &&
          h(
            'button',
            { type: 'button', title: 'One file with all of this, that opens without the program', on: { click: () => void this.save() } },
            'Save',
          ),
        colours,
      ),
    );
  }

  private pauseButton(): HTMLElement {
    const button = h(
      'button',
      {
        type: 'button',
        on: {
          click: () => {
            this.paused = !this.paused;
            text(button, this.paused ? 'Go on' : 'Pause');
            this.stream?.pause(this.paused);
          },
        },
      },
      'Pause',
    );
    return button;
  }

  private say(connection: Connection): void {
    if (this.status.dataset['state'] === 'lost' && connection.state === 'live') announce('The connection is there again.');
    if (this.status.dataset['state'] !== connection.state && connection.state === 'lost') announce('The connection is lost. Trying again.');
    this.status.dataset['state'] = connection.state;
    text(this.status, connection.text);
  }

  private tabKey(event: KeyboardEvent, id: Tab): void {
    const at = tabs.findIndex((tab) => tab.id === id);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = tabs[(to + tabs.length) % tabs.length];
    if (!next) return;
    this.context.state.go(next.id);
    document.getElementById(`tab-${next.id}`)?.focus();
  }

  private show(): void {
    const { tab } = this.context.state;
    for (const { id } of tabs) {
      const button = document.getElementById(`tab-${id}`);
      button?.setAttribute('aria-selected', String(id === tab));
      button?.setAttribute('tabindex', id === tab ? '0' : '-1');
    }
    this.panel.setAttribute('aria-labelledby', `tab-${tab}`);
    document.title = `${tabs.find(({ id }) => id === tab)?.name} · ${legible(this.context.page.title)} · alloctrace`;
    this.view?.close?.();
    this.view = null;
    this.panel.setAttribute('aria-busy', String(this.hasData(tab)));
    this.settle();
    if (!this.hasData(tab)) {
      replace(
        this.panel,
        h(
          'div',
          { class: 'empty-tab' },
          h('h2', null, isLive(this.context) ? 'Nothing to show here yet' : 'Nothing to show here'),
          h('p', null, sentence(this.context.page.tabs[tab] ?? '')),
        ),
      );
      return;
    }
    const view = (this.view = renders[tab](this.context));
    replace(this.panel, view.root);
    this.tellAge();
    void this.refresh();
  }

  // refresh gets the data of what is shown anew, one after the other: an older answer would take the place of a newer one.
  private refresh(): Promise<boolean> {
    const { view } = this;
    if (!view) return Promise.resolve(true);
    if (this.refreshing === view) {
      this.again = true;
      return this.running;
    }
    this.refreshing = view;
    return (this.running = this.get(view));
  }

  private async get(view: View): Promise<boolean> {
    let good: boolean;
    do {
      this.again = false;
      const began = performance.now();
      try {
        await view.refresh();
        good = true;
      } catch (reason) {
        good = false;
        if (view === this.view) this.complain((reason as Error).message);
      }
      if (view !== this.view) return good; // another one has its own
      if (good && !this.stays) this.settle();
      this.next = performance.now() + Math.max(everyMS, 20 * (performance.now() - began));
      this.panel.setAttribute('aria-busy', 'false');
      this.tellAge();
    } while (this.again);
    this.refreshing = null;
    return good;
  }

  // complain shows what went wrong, until what is shown was got anew; or until the user goes on, if what was asked for was not done.
  private complain(message: string, stays = false): void {
    this.stays = stays;
    replace(this.problem, h('p', { class: 'note' }, message));
  }

  // settle takes away what was complained of.
  private settle(): void {
    this.stays = false;
    replace(this.problem);
  }

  private refreshIfDue(): void {
    if (
      this.refreshing === this.view ||
      this.paused ||
      document.hidden ||
      this.view?.heavy ||
      this.status.dataset['state'] !== 'live' ||
      performance.now() < this.next
    )
      return;
    void this.refresh();
  }

  private async tick(tick: Tick): Promise<void> {
    if (tick.id !== this.context.page.id) {
      this.context.state.forget();
      location.reload(); // another process answers here now
      return;
    }
    this.context.history.add(tick); // whether its names are known or not: the next one does not say the same again
    if (this.context.tables.lacks(tick.known)) await this.context.tables.need(tick.known);
    this.context.history.prune(this.context.tables);
    for (const done of this.awaiting.splice(0)) done();
    if (document.hidden) return;
    this.view?.tick?.();
    this.tellAge();
  }

  // tellAge says when what is shown was, if that is not now: what costs the program much is not made again at once.
  private tellAge(): void {
    const at = this.view?.atUS?.() ?? 0,
      now = this.context.history.recent.at(-1)?.atUS ?? 0;
    text(this.age, at > 0 && now - at > 3e6 ? `as of ${clock(timeOf(this.context, at))}` : '');
  }

  private async mark(): Promise<void> {
    if (this.hasData('leaks')) await api.mark();
    if (!this.paused) await new Promise<void>((done) => this.awaiting.push(done)); // for the figures of this moment
    const { history, marks } = this.context;
    const name = `mark ${marks.length + 1}`;
    marks.push({ atUS: history.recent.at(-1)?.atUS ?? 0, name, sites: history.latest() });
    this.settle();
    announce(`This is ${name}. Growth is counted from now on, and the flame graph can show what changes.`);
    void this.refresh();
  }

  private async save(): Promise<void> {
    try {
      const blob = await savePage(this.timelines());
      const url = URL.createObjectURL(blob);
      const link = h('a', { href: url, download: `${this.context.page.title.replace(/[^\w.-]+/g, '_')}-memory.html` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      this.settle();
      announce('The page is saved.');
    } catch (reason) {
      this.complain(`It was not saved: ${(reason as Error).message}`, true);
    }
  }

  private timelines(): Partial<Record<By, Timeline>> {
    const { history, tables } = this.context;
    if (history.steps === 0) return {};
    return Object.fromEntries((['site', 'child', 'region'] as const).map((by) => [by, history.timeline(by, tables)]));
  }
}

async function start(): Promise<void> {
  const root = document.getElementById('app');
  if (!root) return;
  try {
    const page: Page = await api.page();
    const context: Context = {
      page,
      tables: new Tables(),
      history: new History(),
      state: new State(),
      marks: [],
      colours: { site: new Colours(), child: new Colours(), region: new Colours() },
      refresh: () => Promise.resolve(true), // until there is a view
      complain: () => {},
      settle: () => {},
    };
    new App(context, root);
  } catch (reason) {
    replace(
      root,
      h(
        'main',
        { id: 'main', class: 'empty-tab' },
        h('h1', null, 'alloctrace'),
        h('p', null, `${(reason as Error).message} Trying again.`),
      ),
    );
    setTimeout(() => void start(), 3000);
  }
}

void start();
