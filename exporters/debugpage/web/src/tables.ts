// The tables that answers name by index, and the names that people read of them.

import { api } from './api';
import { legible, shortFile, shortFunction } from './format';
import type { Known, Tables as Answer } from './types';

export interface Call {
  fn: string;
  file: string;
  line: number;
}

// Alike is the first of sites that have the same innermost call and owner, and how deep the first call is that not all of them have.
interface Alike {
  site: number;
  depth: number;
}

export class Tables {
  private texts: string[] = [];
  private functions: number[] = [];
  private files: number[] = [];
  private lines: number[] = [];
  private owners: number[] = [];
  private stacks: number[][] = [];
  private cuts: boolean[] = [];
  private parents: number[] = [];
  private names: number[] = [];
  private getting: Promise<void> | null = null;
  private places: (string | undefined)[] = [];
  private alike: Map<string, Alike> | null = null; // sites of the same innermost call and owner

  private known(): Known {
    return { texts: this.texts.length, frames: this.functions.length, sites: this.owners.length, nodes: this.parents.length };
  }

  // need gets what an answer names that is not here yet.
  async need(known: Known): Promise<void> {
    while (this.lacks(known)) {
      this.getting ??= this.get().finally(() => (this.getting = null));
      await this.getting;
    }
  }

  lacks(known: Known): boolean {
    const here = this.known();
    return known.texts > here.texts || known.frames > here.frames || known.sites > here.sites || known.nodes > here.nodes;
  }

  private async get(): Promise<void> {
    const before = this.known();
    const answer = await api.tables(before);
    this.add(answer);
    const now = this.known();
    if (now.texts === before.texts && now.frames === before.frames && now.sites === before.sites && now.nodes === before.nodes) {
      throw new Error('The program names a site that its tables do not have.');
    }
  }

  add(answer: Answer): void {
    join(this.texts, answer.from.texts, answer.texts);
    join(this.functions, answer.from.frames, answer.frames.function);
    join(this.files, answer.from.frames, answer.frames.file);
    join(this.lines, answer.from.frames, answer.frames.line);
    join(this.owners, answer.from.sites, answer.sites.owner);
    join(this.stacks, answer.from.sites, answer.sites.stack);
    join(this.cuts, answer.from.sites, answer.sites.cut);
    join(this.parents, answer.from.nodes, answer.nodes.parent);
    join(this.names, answer.from.nodes, answer.nodes.name);
    this.alike = null;
  }

  text(index: number): string {
    return this.texts[index] ?? '';
  }

  get sites(): number {
    return this.owners.length;
  }

  get nodes(): number {
    return this.parents.length;
  }

  frame(index: number): Call {
    return { fn: this.text(this.functions[index] ?? 0), file: this.text(this.files[index] ?? 0), line: this.lines[index] ?? 0 };
  }

  frames(site: number): number[] {
    return this.stacks[site] ?? [];
  }

  stack(site: number): Call[] {
    return this.frames(site).map((frame) => this.frame(frame));
  }

  isCut(site: number): boolean {
    return this.cuts[site] ?? false;
  }

  owner(site: number): string {
    return this.text(this.owners[site] ?? 0);
  }

  // site is a site in a few words: its innermost function.
  site(site: number): string {
    const [frame] = this.frames(site);
    if (frame === undefined) return site < 0 ? 'not sampled' : 'unknown place';
    return shortFunction(this.frame(frame).fn);
  }

  // place is the file and line of a site.
  place(site: number): string {
    const known = this.places[site];
    if (known !== undefined) return known;
    const [frame] = this.frames(site);
    if (frame === undefined) return '';
    const { file, line } = this.frame(frame);
    return (this.places[site] = `${shortFile(file)}:${line}`);
  }

  // caller is the call that tells a site from others of the same function, place and owner, such as of one that allocates for many: '' if
  // there are none.
  caller(site: number): string {
    if (!this.alike) {
      this.alike = new Map();
      for (let at = 0; at < this.owners.length; at++) this.compare(this.alike, at);
    }
    const depth = this.alike.get(this.key(site))?.depth ?? Infinity,
      frame = this.frames(site)[depth];
    return frame === undefined ? '' : shortCall(this.frame(frame));
  }

  private key(site: number): string {
    return `${this.owners[site]} ${this.frames(site)[0]}`;
  }

  private compare(alike: Map<string, Alike>, site: number): void {
    const key = this.key(site),
      known = alike.get(key);
    if (!known) {
      alike.set(key, { site, depth: Infinity });
      return;
    }
    const one = this.frames(known.site),
      other = this.frames(site);
    let depth = 1;
    while (depth < one.length && one[depth] === other[depth]) depth++;
    if (depth < Math.max(one.length, other.length)) known.depth = Math.min(known.depth, depth);
  }

  // details are where a site is, for whom, and by which call where that alone tells it from others.
  details(site: number): string[] {
    const owner = this.owner(site),
      caller = this.caller(site);
    return [this.place(site), owner && `for ${legible(owner)}`, caller && `by ${caller}`].filter(Boolean);
  }

  // label is a site in one line that tells it from others: its function, its place, whose it is, and who called it if others have all that.
  label(site: number): string {
    const place = this.place(site),
      owner = this.owner(site),
      caller = this.caller(site);
    return `${this.site(site)}${place && ` ${place}`}${owner && ` · ${legible(owner)}`}${caller && ` · by ${caller}`}`;
  }

  // brief is a site in as few words as tell most sites from each other.
  brief(site: number): string {
    const owner = this.owner(site);
    return `${this.site(site)}${owner && ` · ${legible(owner)}`}`;
  }

  parent(node: number): number {
    return this.parents[node] ?? -1;
  }

  name(node: number): string {
    return this.text(this.names[node] ?? 0) || (this.parent(node) < 0 ? 'Proxy' : 'unnamed');
  }

  // path is a node with its parents: mem/cache.
  path(node: number): string {
    const parent = this.parent(node);
    return parent < 0 ? this.name(node) : `${this.path(parent)}/${this.name(node)}`;
  }

  depth(node: number): number {
    let depth = 0;
    for (let at = this.parent(node); at >= 0; at = this.parent(at)) depth++;
    return depth;
  }
}

// join puts what was got at its index; two answers may overlap.
function join<T>(to: T[], from: number, list: T[]): void {
  for (let i = 0; i < list.length; i++) to[from + i] = list[i] as T;
}

export function shortCall(call: Call): string {
  return `${shortFunction(call.fn)} (${shortFile(call.file)}:${call.line})`;
}
