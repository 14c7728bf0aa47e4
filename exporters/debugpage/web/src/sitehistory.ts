// The steps of sites. There may be a hundred thousand, of which each step of each would take a gigabyte: where there are more than mostSites, those
// that have held or grown by most have their own, and of the others there are sums by owner.

import { Series, sum, type Figures } from './series';
import type { Tables } from './tables';
import type { SiteColumns, Tick } from './types';

export const mostSites = 1000;
const mostByGrowth = 300; // of them
const mostOwners = 200;

// Other is a site that has no steps of its own.
interface Other {
  first: Figures;
  last: Figures;
  of: Series; // the sum that it is in
}

export class SiteHistory {
  private readonly kept = new Map<number, Series>();
  private readonly dropped = new Map<number, Other>();
  private readonly rest = new Map<string | null, Series>(); // by owner; null is of owners that are too many
  private least = { peak: Infinity, growth: Infinity }; // with which a site is worth steps of its own
  private ownerless = 0; // sites in the sum of null

  // note takes in what a tick says, which is of this step.
  note(tick: Tick, step: number): void {
    if (tick.whole) {
      for (const series of this.kept.values()) series.last = { ...series.last, live: 0 };
      for (const other of this.dropped.values()) this.change(other, { ...other.last, live: 0 });
    }
    tick.site.forEach((site, i) => {
      const now = { live: tick.site_live[i] ?? 0, allocated: tick.site_allocated[i] ?? 0 };
      const other = this.dropped.get(site);
      let series = this.kept.get(site);
      if (other && now.live < this.least.peak && now.live - other.first.live < this.least.growth) return this.change(other, now);
      if (!series) this.kept.set(site, (series = new Series(step)));
      if (other) {
        this.change(other, { live: 0, allocated: 0 });
        this.dropped.delete(site);
        if (other.of === this.rest.get(null)) this.ownerless--;
        series.first = other.first;
        other.of.first = sum(other.of.first, other.first, -1);
      }
      series.last = now;
    });
  }

  // change has a sum have what one of its sites has now.
  private change(other: Other, now: Figures): void {
    other.of.last = sum(other.of.last, sum(now, other.last, -1));
    other.last = now;
  }

  // opened says that what was noted is what there was when the page was opened.
  opened(): void {
    for (const series of this.kept.values()) series.first = series.last;
  }

  // prune takes the steps of so many from the sites that hold little, if twice as many have them as may: so it is seldom done.
  prune(tables: Tables, steps: number): void {
    if (this.kept.size <= 2 * mostSites) return;
    const growth = ({ first, last }: Series) => last.live - first.live;
    const all = [...this.kept].sort(([, a], [, b]) => b.peak - a.peak);
    const byPeak = all.splice(0, mostSites - mostByGrowth);
    all.sort(([, a], [, b]) => growth(b) - growth(a) || b.peak - a.peak);
    const byGrowth = all.splice(0, mostByGrowth);
    this.least = {
      peak: 1 + (byPeak.at(-1)?.[1].peak ?? 0),
      growth: 1 + Math.max(0, ...byGrowth.slice(-1).map(([, series]) => growth(series))),
    };
    for (const [site, series] of all) {
      const of = this.restOf(tables.owner(site), steps);
      of.add(series, steps);
      this.kept.delete(site);
      this.dropped.set(site, { first: series.first, last: series.last, of });
    }
  }

  private restOf(owner: string, steps: number): Series {
    const key = this.rest.has(owner) || this.rest.size < mostOwners ? owner : null;
    if (key === null) this.ownerless++;
    let of = this.rest.get(key);
    if (!of) this.rest.set(key, (of = new Series(Math.max(0, steps - 1))));
    return of;
  }

  // series are all that are written, a step each.
  *series(): Iterable<Series> {
    yield* this.kept.values();
    yield* this.rest.values();
  }

  // own are the sites that have steps of their own.
  own(): Iterable<[number, Series]> {
    return this.kept;
  }

  // others are how many sites have none, and the sums of these.
  others(): { count: number; rest: Map<string | null, Series>; ownerless: number } {
    return { count: this.dropped.size, rest: this.rest, ownerless: this.ownerless };
  }

  get(site: number): Series | undefined {
    return this.kept.get(site);
  }

  // columns are all sites as they were when the page was opened, or as the last tick has them.
  columns(of: 'first' | 'last'): SiteColumns {
    const all = [...this.kept, ...this.dropped];
    return columns(
      all.map(([site]) => site),
      all.map(([, at]) => at[of].live),
      all.map(([, at]) => at[of].allocated),
    );
  }
}

// columns are those of sites of which nothing else is known.
export function columns(site: number[], live: number[], allocated: number[]): SiteColumns {
  return {
    site,
    live,
    live_blocks: [],
    live_error: [],
    allocated,
    allocated_blocks: [],
    peak: null,
    peak_us: 0,
    pinned: null,
    lifetime: null,
  };
}
