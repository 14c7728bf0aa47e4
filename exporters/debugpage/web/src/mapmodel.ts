// How memory lies, put together for drawing: the spans of each allocator, by the size of their blocks, and which cell of a span has
// which block.

import type { MapAllocator, MemoryMap } from './types';

// Cell is the place of one block in a span, live or free.
export interface Cell {
  group: Group;
  span: number;
  index: number;
}

// Group is the spans of one allocator that were cut into blocks of one size.
export interface Group {
  allocator: MapAllocator;
  block: number; // bytes; 0 if they have any size
  unit: number; // bytes of a cell: those of a block, or else a power of two
  spans: number[]; // rows of allocator.spans: those with the most free memory first
  size: number; // bytes of them
  live: number;
  free: number; // not live, with memory behind
  clean: number; // not live, without
  blocks: number; // that are live
  unknown: number; // of them, those that were not sampled
  known: boolean; // what of the free bytes is clean
}

interface Extent {
  start: number;
  end: number;
}

export class MapModel {
  readonly groups: Group[] = [];
  private readonly first = new Map<MapAllocator, Int32Array>(); // of each span, its first row of blocks

  constructor(readonly map: MemoryMap) {
    for (const allocator of map.allocators ?? []) {
      this.first.set(allocator, firsts(allocator));
      this.group(allocator);
    }
    this.groups.sort((a, b) => b.free - a.free || b.clean - a.clean || b.size - a.size);
  }

  // size is how many bytes the spans take: those that an allocator has cut out of another's count once.
  get size(): number {
    let size = 0,
      end = -Infinity;
    for (const span of this.extents(this.map.allocators ?? [])) {
      size += Math.max(0, span.end - Math.max(end, span.start));
      end = Math.max(end, span.end);
    }
    return size;
  }

  // within are the other allocators whose spans lie in those of one, and how many bytes of it they have.
  within(allocator: MapAllocator): { allocator: MapAllocator; bytes: number }[] {
    const outer = this.extents([allocator]);
    return (this.map.allocators ?? [])
      .filter((other) => other !== allocator)
      .map((other) => {
        let bytes = 0,
          at = 0;
        for (const { start, end } of this.extents([other])) {
          while (at < outer.length && (outer[at] as Extent).end <= start) at++;
          const around = outer[at];
          if (around && around.start <= start && end <= around.end) bytes += end - start;
        }
        return { allocator: other, bytes };
      })
      .filter(({ bytes }) => bytes > 0);
  }

  // extents are the spans of allocators, by address.
  private extents(allocators: MapAllocator[]): Extent[] {
    return allocators
      .flatMap(({ spans, addr_min: base }) =>
        spans.addr.map((addr, i) => ({ start: base + addr, end: base + addr + (spans.size[i] ?? 0) })),
      )
      .sort((a, b) => a.start - b.start);
  }

  private group(allocator: MapAllocator): void {
    const { spans } = allocator;
    const bySize = new Map<number, Group>();
    for (let i = 0; i < spans.addr.length; i++) {
      const block = spans.block?.[i] ?? 0;
      let group = bySize.get(block);
      if (!group) {
        group = {
          allocator,
          block,
          unit: block,
          spans: [],
          size: 0,
          live: 0,
          free: 0,
          clean: 0,
          blocks: 0,
          unknown: 0,
          known: spans.dirty !== null,
        };
        bySize.set(block, group);
        this.groups.push(group);
      }
      const size = spans.size[i] as number,
        free = spans.free[i] as number,
        dirty = spans.dirty?.[i] ?? free;
      const [from, to] = this.blocks(allocator, i);
      const live = spans.live?.[i] ?? to - from;
      group.spans.push(i);
      group.size += size;
      group.live += size - free;
      group.free += dirty;
      group.clean += free - dirty;
      group.blocks += live;
      group.unknown += Math.max(0, live - (to - from));
    }
    for (const group of bySize.values()) group.unit ||= 2 ** Math.max(6, Math.ceil(Math.log2(group.size / mostCells)));
    const kept = (i: number) => spans.dirty?.[i] ?? (spans.free[i] as number);
    for (const group of bySize.values())
      group.spans.sort(
        (a, b) =>
          kept(b) - kept(a) ||
          (spans.free[b] as number) - (spans.free[a] as number) ||
          (spans.addr[a] as number) - (spans.addr[b] as number),
      );
  }

  // keepers are the sites that have live blocks in the spans of a group that have free memory, the one with the most blocks first.
  keepers(group: Group): { site: number; blocks: number; spans: number }[] {
    const { blocks, spans } = group.allocator;
    const sites = new Map<number, { site: number; blocks: number; spans: number; last: number }>();
    for (const span of group.spans) {
      if ((spans.free[span] as number) === 0) continue;
      const [from, to] = this.blocks(group.allocator, span);
      for (let row = from; row < to; row++) {
        const site = blocks.site[row] as number;
        let sum = sites.get(site);
        if (!sum) sites.set(site, (sum = { site, blocks: 0, spans: 0, last: -1 }));
        sum.blocks++;
        if (sum.last !== span) sum.spans++;
        sum.last = span;
      }
    }
    return [...sites.values()]
      .sort((a, b) => b.spans - a.spans || b.blocks - a.blocks)
      .map(({ site, blocks, spans }) => ({ site, blocks, spans }));
  }

  // blocks are the rows of the live blocks of a span that were sampled, from the first to before the second.
  blocks(allocator: MapAllocator, span: number): [number, number] {
    const first = this.first.get(allocator) as Int32Array;
    return [first[span] as number, first[span + 1] as number];
  }

  cells(group: Group, span: number): number {
    const size = group.allocator.spans.size[span] as number;
    return Math.max(1, group.block > 0 ? Math.floor(size / group.block) : Math.ceil(size / group.unit));
  }

  // blockAt is the row of the block that a cell has, or -1.
  blockAt({ group, span, index }: Cell): number {
    return Math.max(-1, this.kinds(group, span)[index] ?? -1);
  }

  // find returns the cell at an address, in an allocator: the blocks of one can be the spans of another.
  find(name: string, address: number): Cell | null {
    for (const group of this.groups) {
      if (group.allocator.name !== name) continue;
      const { spans, addr_min: base } = group.allocator;
      for (const span of group.spans) {
        const offset = address - base - (spans.addr[span] as number);
        if (offset >= 0 && offset < (spans.size[span] as number))
          return { group, span, index: Math.min(this.cells(group, span) - 1, Math.floor(offset / group.unit)) };
      }
    }
    return null;
  }

  // kinds says of each cell of a span what is in it: the row of its block, or one of the constants below. Which free cells are clean is not
  // known, but only how many: they are taken to be the last ones.
  kinds(group: Group, span: number): Int32Array {
    const { spans, blocks } = group.allocator;
    const kinds = new Int32Array(this.cells(group, span)).fill(Free);
    const [from, to] = this.blocks(group.allocator, span);
    const addr = spans.addr[span] as number;
    for (let row = from; row < to; row++) {
      const offset = (blocks.addr[row] as number) - addr,
        end = offset + Math.max(1, blocks.size[row] as number);
      const last = Math.min(kinds.length, group.block > 0 ? Math.floor(offset / group.unit) + 1 : Math.ceil(end / group.unit));
      for (let cell = Math.floor(offset / group.unit); cell < last; cell++) if (kinds[cell] === Free) kinds[cell] = row;
    }
    let clean = spans.dirty ? Math.round(((spans.free[span] as number) - (spans.dirty[span] as number)) / group.unit) : 0;
    for (let i = kinds.length - 1; i >= 0 && clean > 0; i--) {
      if (kinds[i] !== Free) continue;
      kinds[i] = Clean;
      clean--;
    }
    let unknown = (spans.live?.[span] ?? to - from) - (to - from);
    for (let i = 0; i < kinds.length && unknown > 0; i++) {
      if (kinds[i] !== Free) continue;
      kinds[i] = Unsampled;
      unknown--;
    }
    return kinds;
  }
}

// addressOf is where a cell begins.
export function addressOf({ group, span, index }: Cell): number {
  return (group.allocator.spans.addr[span] ?? 0) + group.allocator.addr_min + index * group.unit;
}

// cellNoun is what the places of an allocator's spans are called: a Slab cuts blocks into slots.
export function cellNoun(allocator: MapAllocator): string {
  return allocator.span === 'block' ? 'slots' : 'blocks';
}

// spanNoun is what a span is called: a recording knows of ranges of addresses alone.
export function spanNoun(allocator: MapAllocator): string {
  return allocator.span === 'addresses' ? 'range' : allocator.span || 'span';
}

const mostCells = 6000; // of blocks of any size

export const Free = -1;
export const Clean = -2;
export const Unsampled = -3;

function firsts({ spans, blocks }: MapAllocator): Int32Array {
  const first = new Int32Array(spans.addr.length + 1);
  for (const span of blocks.span) first[span + 1] = (first[span + 1] as number) + 1;
  for (let i = 1; i < first.length; i++) first[i] = (first[i] as number) + (first[i - 1] as number);
  return first;
}
