// The tree of calls of a flame graph, from sites and a number of each.

import { legible } from './format';
import type { Tables } from './tables';

export interface Flame {
  fn: string; // "" of the root
  place: string; // file and line, of one of the calls that were put together
  value: number; // of the sites below; where it is a difference, the sum of what has grown and of what has shrunk
  net: number; // the difference; the same as value where it is none
  self: number; // of what the function itself has allocated
  parent: Flame | null;
  children: Flame[]; // the largest first
  depth: number;
  start: number; // where it begins, with the values of those before it
  sites: number[]; // that the function itself is
}

export interface Amount {
  site: number;
  value: number;
}

export function flameTree(tables: Tables, amounts: Amount[]): Flame {
  const root = node('', '', null);
  const children = new Map<Flame, Map<string, Flame>>();
  for (const { site, value } of amounts) {
    if (value === 0) continue;
    const size = Math.abs(value);
    let at = root;
    at.value += size;
    at.net += value;
    const frames = tables.frames(site);
    const names = frames.length > 0 ? [] : [{ fn: legible(tables.owner(site)) || 'unknown place', place: '' }];
    for (let i = frames.length - 1; i >= 0; i--) {
      const { fn, file, line } = tables.frame(frames[i] as number);
      names.push({ fn, place: `${file}:${line}` });
    }
    for (const { fn, place } of names) {
      let known = children.get(at);
      if (!known) children.set(at, (known = new Map()));
      let next = known.get(fn);
      if (!next) {
        known.set(fn, (next = node(fn, place, at)));
        at.children.push(next);
      }
      next.value += size;
      next.net += value;
      at = next;
    }
    at.self += size;
    at.sites.push(site);
  }
  place(root);
  return root;
}

function node(fn: string, place: string, parent: Flame | null): Flame {
  return { fn, place, value: 0, net: 0, self: 0, parent, children: [], depth: parent ? parent.depth + 1 : 0, start: 0, sites: [] };
}

function place(root: Flame): void {
  const waiting = [root];
  for (let at = waiting.pop(); at; at = waiting.pop()) {
    at.children.sort((a, b) => b.value - a.value || a.fn.localeCompare(b.fn));
    let start = at.start;
    for (const child of at.children) {
      child.start = start;
      start += child.value;
      waiting.push(child);
    }
  }
}

export function depthOf(root: Flame): number {
  let most = 0;
  each(root, (at) => (most = Math.max(most, at.depth)));
  return most;
}

export function each(root: Flame, call: (at: Flame) => void): void {
  const waiting = [root];
  for (let at = waiting.pop(); at; at = waiting.pop()) {
    call(at);
    for (let i = at.children.length - 1; i >= 0; i--) waiting.push(at.children[i] as Flame);
  }
}

// pathOf is the functions from the root to a frame, by which it is found again in another tree.
export function pathOf(at: Flame): string[] {
  const path: string[] = [];
  for (let up: Flame | null = at; up?.parent; up = up.parent) path.unshift(up.fn);
  return path;
}

// find returns the frame of a path, or the nearest above it that there is.
export function find(root: Flame, path: string[]): Flame {
  let at = root;
  for (const fn of path) {
    const next = at.children.find((child) => child.fn === fn);
    if (!next) break;
    at = next;
  }
  return at;
}

// matching is the frames whose function fits a search, and how much is below them, each byte once.
export function matching(root: Flame, search: RegExp): { frames: Set<Flame>; value: number } {
  const frames = new Set<Flame>();
  let value = 0;
  const visit = (at: Flame, inside: boolean): void => {
    const fits = at.parent !== null && search.test(at.fn);
    if (fits) frames.add(at);
    if (fits && !inside) value += at.value;
    for (const child of at.children) visit(child, inside || fits);
  };
  visit(root, false);
  return { frames, value };
}

// packageOf is the part of a function's name that its colour comes from.
export function packageOf(fn: string): string {
  const slash = fn.lastIndexOf('/');
  const dot = fn.indexOf('.', slash + 1);
  return dot < 0 ? fn : fn.slice(0, dot);
}
