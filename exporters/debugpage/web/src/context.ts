// What the tabs have in common.

import type { History } from './history';
import type { State } from './state';
import type { Tables } from './tables';
import type { Colours } from './theme';
import type { By, Page, SiteColumns } from './types';

export interface Context {
  page: Page;
  tables: Tables;
  history: History; // empty but of a live page
  state: State;
  colours: Record<By, Colours>;
  marks: Mark[];
  refresh(): Promise<boolean>; // gets what is shown anew, and says whether that went well
  complain(reason: Error, stays?: boolean): void; // shows what went wrong; it stays where what the user asked for was not done
  settle(): void; // takes that away, once it is done
}

// Mark is a moment that the user has marked, and the sites as they were then.
export interface Mark {
  atUS: number;
  name: string;
  sites: SiteColumns;
}

// View is what a tab shows.
export interface View {
  root: HTMLElement;
  refresh(): Promise<void>; // gets what is shown anew
  atUS?(): number; // of the oldest answer that is shown, where that can be some time ago
  tick?(): void; // the history has a new step
  redraw?(): void; // the theme has changed
  close?(): void; // it is not shown any more
  heavy?: boolean; // it is not refreshed by itself
}

export type Render = (context: Context) => View;

// isLive says whether numbers change while one looks.
export function isLive(context: Context): boolean {
  return context.page.mode === 'live';
}

// isProcess says whether what is shown is, or was, a live page: its moments are times of day, and those of a recording times since its beginning.
export function isProcess(context: Context): boolean {
  return context.page.of === 'live';
}

export function timeOf(context: Context, us: number): number {
  return context.page.began_ms + us / 1000;
}
