// Where answers come from: the server, or the page itself if it was saved.

import type {
  Blocks,
  Between,
  By,
  Events,
  Known,
  Leaks,
  Lifetimes,
  MemoryMap,
  Page,
  Snapshot,
  Tables,
  Timeline,
  Unreachable,
} from './types';

// Unknown is an answer that there is none, and why.
export class Unknown extends Error {}

const saved = readSaved();

function readSaved(): Record<string, unknown> | null {
  const element = document.getElementById('saved');
  return element ? (JSON.parse(element.textContent ?? '') as Record<string, unknown>) : null;
}

export const isSaved = saved !== null;

async function ask<T>(path: string, parameters: Record<string, string | number> = {}, method = 'GET'): Promise<T> {
  const query = new URLSearchParams(Object.entries(parameters).map(([name, value]) => [name, String(value)])).toString();
  if (saved) {
    const answer = saved[`${path}?${query}`] ?? saved[path];
    if (answer === undefined) throw new Unknown('This page was saved without that.');
    return answer as T;
  }
  let response: Response;
  try {
    response = await fetch(query ? `${path}?${query}` : path, { method, cache: 'no-store' });
  } catch {
    throw new Error('The program does not answer.');
  }
  if (!response.ok) throw new Unknown(await reason(response));
  try {
    return (await response.json()) as T;
  } catch {
    throw new Error('The program’s answer has no end: it has ended, or takes too long.');
  }
}

async function reason(response: Response): Promise<string> {
  const body = await response.text();
  try {
    return (JSON.parse(body) as { error: string }).error;
  } catch {
    return `The program answered ${response.status} ${response.statusText}: ${body.slice(0, 200)}`;
  }
}

export const api = {
  page: () => ask<Page>('api/page'),
  tables: (from: Known) => ask<Tables>('api/tables', { sites: from.sites, texts: from.texts, frames: from.frames, nodes: from.nodes }),
  snapshot: (atUS?: number) => ask<Snapshot>('api/snapshot', atUS === undefined ? {} : { at: Math.round(atUS) }),
  blocks: (n: number) => ask<Blocks>('api/blocks', { n }),
  map: () => ask<MemoryMap>('api/map'),
  events: (n: number) => ask<Events>('api/events', { n }),
  timeline: (by: By, steps: number) => ask<Timeline>('api/timeline', saved ? { by } : { by, steps }),
  between: (from: number, to: number) => ask<Between>('api/between', { from: Math.round(from), to: Math.round(to) }),
  lifetimes: () => ask<Lifetimes>('api/lifetimes'),
  leaks: () => ask<Leaks>('api/leaks'),
  mark: () => ask<Leaks>('api/mark', {}, 'POST'),
  unreachable: () => ask<Unreachable>('api/unreachable', {}, 'POST'),
};

// savePage has the server make the page one file, with the timelines that this page has made.
export async function savePage(timelines: Partial<Record<By, Timeline>>): Promise<Blob> {
  const body = Object.fromEntries(Object.entries(timelines).map(([by, timeline]) => [`api/timeline?by=${by}`, timeline]));
  const response = await fetch('save', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(await reason(response));
  return response.blob();
}
