// What a live page remembers of the stream: how many bytes were live, and how many had been allocated, of each node and site at each step.
// Steps become twice as long when there are too many, so that a page that is open for days takes no more memory.

import type { Tables } from './tables';
import type { By, SiteColumns, Snapshot, Stats, Tick, Timeline, TimelineGroup } from './types';

const maxSteps = 1200;
const maxGroups = 200;
const recentTicks = 10;

// Series are numbers of one thing at each step; what is not told of stays as it was.
class Series {
  live = new Float64Array(maxSteps);
  allocated = new Float64Array(maxSteps);
  last = { live: 0, allocated: 0 };
}

export class History {
  beginUS = 0;
  stepUS = 1e6;
  steps = 0;
  recent: { atUS: number; total: Stats }[] = []; // of the last ticks, the oldest first
  private times = new Float64Array(maxSteps); // of the tick that a step is of
  private total = new Series();
  private nodes = new Map<number, Series>();
  private sites = new Map<number, Series>();

  add(tick: Tick): void {
    if (this.steps === 0) this.beginUS = tick.at_us;
    let step = Math.floor((tick.at_us - this.beginUS) / this.stepUS + 0.5);
    while (step >= maxSteps) {
      this.halve();
      step = Math.floor((tick.at_us - this.beginUS) / this.stepUS + 0.5);
    }
    if (tick.whole) {
      for (const series of [...this.nodes.values(), ...this.sites.values()]) series.last.live = 0;
    }
    this.total.last = { live: tick.total.live, allocated: tick.total.allocated };
    this.note(this.nodes, tick.node, tick.node_live, tick.node_allocated);
    this.note(this.sites, tick.site, tick.site_live, tick.site_allocated);
    for (const series of this.all()) this.write(series, Math.max(step, this.steps - 1));
    for (let i = this.steps; i < step; i++) this.times[i] = this.beginUS + i * this.stepUS;
    this.times[Math.max(step, this.steps - 1)] = tick.at_us;
    this.steps = Math.max(step + 1, this.steps);
    this.recent = [...this.recent.slice(-recentTicks), { atUS: tick.at_us, total: tick.total }];
  }

  private *all(): Iterable<Series> {
    yield this.total;
    yield* this.nodes.values();
    yield* this.sites.values();
  }

  private note(to: Map<number, Series>, ids: number[], live: number[], allocated: number[]): void {
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i] as number;
      let series = to.get(id);
      if (!series) to.set(id, (series = new Series()));
      series.last = { live: live[i] ?? 0, allocated: allocated[i] ?? 0 };
    }
  }

  // write fills the steps from the last one to this one, those in between with what a line between them says: a busy program has fewer ticks.
  // A step has the most live bytes of its ticks, and the latest sum of those allocated.
  private write(series: Series, step: number): void {
    const from = Math.max(0, this.steps - 1);
    const { live, allocated } = this.steps > 0 ? { live: series.live[from] ?? 0, allocated: series.allocated[from] ?? 0 } : series.last;
    for (let i = this.steps; i <= step; i++) {
      const part = step > from ? (i - from) / (step - from) : 1;
      series.live[i] = Math.round(live + part * (series.last.live - live));
      series.allocated[i] = Math.round(allocated + part * (series.last.allocated - allocated));
    }
    if (step === this.steps - 1) {
      series.live[step] = Math.max(series.live[step] ?? 0, series.last.live);
      series.allocated[step] = series.last.allocated;
    }
  }

  private halve(): void {
    for (const { live, allocated } of this.all()) {
      for (let i = 0; i < this.steps / 2; i++) {
        const second = Math.min(2 * i + 1, this.steps - 1);
        live[i] = Math.max(live[2 * i] as number, live[second] as number);
        allocated[i] = allocated[second] as number;
      }
    }
    for (let i = 0; i < this.steps / 2; i++) this.times[i] = this.times[Math.min(2 * i + 1, this.steps - 1)] as number;
    this.steps = Math.ceil(this.steps / 2);
    this.stepUS *= 2;
  }

  // sitesAt are the sites as they were at a moment.
  sitesAt(us: number): SiteColumns {
    const step = this.stepAt(us),
      sites = [...this.sites.keys()];
    return columns(
      sites,
      sites.map((site) => this.sites.get(site)?.live[step] ?? 0),
      sites.map((site) => this.sites.get(site)?.allocated[step] ?? 0),
    );
  }

  // siteAllocated is about how many bytes a site has allocated between two moments.
  siteAllocated(site: number, fromUS: number, toUS: number): number {
    const series = this.sites.get(site);
    return series ? this.allocatedAt(series, toUS) - this.allocatedAt(series, fromUS) : 0;
  }

  // allocatedAt is between two steps what a line between them says.
  private allocatedAt(series: Series, us: number): number {
    let step = 1;
    while (step < this.steps && (this.times[step] as number) < us) step++;
    if (step >= this.steps) return series.allocated[this.steps - 1] as number;
    const [begin, end] = this.times.subarray(step - 1, step + 1) as unknown as [number, number];
    const [before, after] = series.allocated.subarray(step - 1, step + 1) as unknown as [number, number];
    return before + (after - before) * Math.max(0, Math.min(1, (us - begin) / (end - begin)));
  }

  // nodeValues are the last values of a node, at most so many, for a small plot.
  nodeValues(node: number, most: number): number[] {
    return this.lastOf(this.nodes.get(node), most);
  }

  // latest are the sites as the last tick has them.
  latest(): SiteColumns {
    const all = [...this.sites];
    return columns(
      all.map(([site]) => site),
      all.map(([, series]) => series.last.live),
      all.map(([, series]) => series.last.allocated),
    );
  }

  siteValues(site: number, most: number): number[] {
    return this.lastOf(this.sites.get(site), most);
  }

  private lastOf(series: Series | undefined, most: number): number[] {
    return series ? Array.from(series.live.subarray(Math.max(0, this.steps - most), this.steps)) : [];
  }

  // nodeRate is how many bytes a node has allocated in a second, over the last time.
  nodeRate(node: number, overUS: number): number {
    return this.rate(this.nodes.get(node), overUS);
  }

  private rate(series: Series | undefined, overUS: number): number {
    const steps = Math.min(this.steps - 1, Math.max(1, Math.round(overUS / this.stepUS)));
    if (!series || steps < 1) return 0;
    const last = series.allocated[this.steps - 1] as number,
      before = series.allocated[this.steps - 1 - steps] as number;
    const us = (this.times[this.steps - 1] as number) - (this.times[this.steps - 1 - steps] as number);
    return us > 0 ? (last - before) / (us / 1e6) : 0;
  }

  private stepAt(us: number): number {
    return Math.max(0, Math.min(this.steps - 1, Math.round((us - this.beginUS) / this.stepUS)));
  }

  // upToDate is a snapshot with what the last ticks say of its totals.
  upToDate(snapshot: Snapshot): Snapshot {
    const first = this.recent[0],
      last = this.recent.at(-1);
    if (!first || !last || last.atUS <= Math.max(first.atUS, snapshot.at_us)) return snapshot;
    const rate = (of: keyof Stats) => (last.total[of] - first.total[of]) / ((last.atUS - first.atUS) / 1e6);
    return {
      ...snapshot,
      at_us: last.atUS,
      total: last.total,
      rate_us: last.atUS - first.atUS,
      allocated_per_second: rate('allocated'),
      freed_per_second: rate('freed'),
      allocations_per_second: rate('allocations') + rate('reallocations'), // as the server counts them
    };
  }

  // timeline is what the server makes of a recording.
  timeline(by: By, tables: Tables): Timeline {
    const groups = by === 'child' ? this.children(tables) : by === 'site' ? this.bySite() : this.byOwner(tables);
    groups.sort((a, b) => b.peak - a.peak);
    if (groups.length > maxGroups) groups.push(sum(groups.splice(maxGroups - 1), this.steps));
    return {
      known: { texts: 0, frames: 0, sites: 0, nodes: 0 },
      by,
      begin_us: this.beginUS,
      step_us: this.stepUS,
      total: this.group(-1, '', ...this.values(this.total)).values,
      groups,
    };
  }

  // values are the live bytes of a series at each step, and now.
  private values(series: Series): [number[], number] {
    return [Array.from(series.live.subarray(0, this.steps)), series.last.live];
  }

  // group has the most live bytes of each step, and of the last one, which is not over, those of now.
  private group(site: number, name: string, values: number[], now: number): TimelineGroup {
    const peak = values.reduce((a, b) => Math.max(a, b), 0);
    if (values.length > 0) values[values.length - 1] = now;
    return { site, name, rest: 0, peak, values };
  }

  private bySite(): TimelineGroup[] {
    return [...this.sites].map(([site, series]) => this.group(site, '', ...this.values(series)));
  }

  private byOwner(tables: Tables): TimelineGroup[] {
    const owners = new Map<string, [number[], number]>();
    for (const [site, series] of this.sites) {
      const owner = tables.owner(site),
        sum = owners.get(owner);
      if (sum) owners.set(owner, [sum[0].map((value, i) => value + (series.live[i] as number)), sum[1] + series.last.live]);
      else owners.set(owner, this.values(series));
    }
    return [...owners].map(([owner, [values, now]]) => this.group(-1, owner, values, now));
  }

  // children are the nodes without what their children have, so that the groups add up.
  private children(tables: Tables): TimelineGroup[] {
    const own = new Map<number, [number[], number]>();
    for (const [node, series] of this.nodes) own.set(node, this.values(series));
    for (const [node, series] of this.nodes) {
      const parent = own.get(tables.parent(node));
      if (!parent) continue;
      for (let i = 0; i < this.steps; i++) parent[0][i] = Math.max(0, (parent[0][i] as number) - (series.live[i] as number));
      parent[1] = Math.max(0, parent[1] - series.last.live);
    }
    return [...own].map(([node, [values, now]]) => this.group(-1, tables.path(node), values, now));
  }
}

function sum(groups: TimelineGroup[], steps: number): TimelineGroup {
  const values = new Array<number>(steps).fill(0);
  for (const group of groups) {
    for (let i = 0; i < steps; i++) values[i] = (values[i] as number) + (group.values[i] as number);
  }
  return { site: -1, name: '', rest: groups.length, peak: values.reduce((a, b) => Math.max(a, b), 0), values };
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
