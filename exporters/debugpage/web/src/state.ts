// What the page shows stands in the fragment of its URL, so that it can be sent to somebody else: #timeline?by=child&from=1&to=2.

import type { Tab } from './types';

export const tabs: { id: Tab; name: string }[] = [
  { id: 'overview', name: 'Overview' },
  { id: 'timeline', name: 'Timeline' },
  { id: 'flame', name: 'Flame graph' },
  { id: 'map', name: 'Map' },
  { id: 'lifetimes', name: 'Lifetimes' },
  { id: 'leaks', name: 'Leaks' },
  { id: 'events', name: 'Events' },
];

export class State {
  tab: Tab = 'overview';
  private parameters = new URLSearchParams();
  private kept = new Map<Tab, string>(); // of the tabs that were left
  private listeners: (() => void)[] = [];

  constructor() {
    this.read();
    window.addEventListener('hashchange', () => {
      this.read();
      for (const listener of this.listeners) listener();
    });
  }

  private read(): void {
    const [tab, query] = location.hash.slice(1).split('?');
    this.tab = tabs.find(({ id }) => id === tab)?.id ?? 'overview';
    this.parameters = new URLSearchParams(query ?? '');
  }

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  get(name: string): string | null {
    return this.parameters.get(name);
  }

  number(name: string): number | null {
    const value = Number.parseFloat(this.parameters.get(name) ?? '');
    return Number.isFinite(value) ? value : null;
  }

  // set changes parameters of the tab that is shown, without a new entry in the history: null takes one away.
  set(values: Record<string, string | number | null>): void {
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === '') this.parameters.delete(name);
      else this.parameters.set(name, String(value));
    }
    history.replaceState(null, '', this.url(this.tab, this.parameters));
  }

  // go shows a tab, with these parameters or with those that it had.
  go(tab: Tab, values?: Record<string, string | number>): void {
    this.kept.set(this.tab, this.parameters.toString());
    const parameters = values
      ? new URLSearchParams(Object.entries(values).map(([k, v]) => [k, String(v)]))
      : new URLSearchParams(this.kept.get(tab) ?? '');
    location.hash = this.url(tab, parameters);
  }

  // forget drops moments and addresses, which mean nothing in another process.
  forget(): void {
    this.set({ from: null, to: null, at: null, in: null });
  }

  private url(tab: Tab, parameters: URLSearchParams): string {
    const query = parameters.toString();
    return `#${tab}${query && `?${query}`}`;
  }
}
