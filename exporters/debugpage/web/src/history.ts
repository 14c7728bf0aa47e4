// What a live page remembers of the stream: how many bytes were live, and how many had been allocated, of each node and site at each step.
// Steps become twice as long when there are too many, so that a page that is open for days takes no more memory.

import type { Tables } from './tables';
import { SiteHistory } from './sitehistory';
import { maxSteps, Series } from './series';
import type { By, SiteColumns, Snapshot, Stats, Tick, Timeline, TimelineGroup } from './types';

const maxGroups = 200;
const recentTicks = 10;

// NodeFigures are what the last tick says of a node beside its bytes.
export interface NodeFigures {
  blocks: number;
  peak: number;
  failures: number;
}

export class History {
  beginUS = 0;
  stepUS = 1e6;
  steps = 0;
  recent: { atUS: number; total: Stats }[] = []; // of the last ticks, the oldest first
  private times = new Float64Array(maxSteps); // of the tick that a step is of
  private total = new Series(0);
  private nodes = new Map<number, Series>();
  private figures = new Map<number, NodeFigures>();
  private sites = new SiteHistory();

  add(tick: Tick): void {
    const first = this.steps === 0;
    if (first) this.beginUS = tick.at_us;
    let step = Math.floor((tick.at_us - this.beginUS) / this.stepUS + 0.5);
    while (step >= maxSteps) {
      this.halve();
      step = Math.floor((tick.at_us - this.beginUS) / this.stepUS + 0.5);
    }
    step = Math.max(step, this.steps - 1);
    if (tick.whole) for (const series of this.nodes.values()) series.last = { ...series.last, live: 0 };
    this.total.last = { live: tick.total.live, allocated: tick.total.allocated };
    tick.node.forEach((node, i) => {
      let series = this.nodes.get(node);
      if (!series) this.nodes.set(node, (series = new Series(step)));
      series.last = { live: tick.node_live[i] ?? 0, allocated: tick.node_allocated[i] ?? 0 };
      this.figures.set(node, { blocks: tick.node_blocks[i] ?? 0, peak: tick.node_peak[i] ?? 0, failures: tick.node_failures[i] ?? 0 });
    });
    this.sites.note(tick, step);
    if (first) {
      for (const series of [this.total, ...this.nodes.values()]) series.first = series.last;
      this.sites.opened();
    }
    for (const series of this.all()) series.write(step, this.steps);
    for (let i = this.steps; i < step; i++) this.times[i] = this.beginUS + i * this.stepUS;
    this.times[step] = tick.at_us;
    this.steps = Math.max(step + 1, this.steps);
    this.recent = [...this.recent.slice(-recentTicks), { atUS: tick.at_us, total: tick.total }];
  }

  // prune gives up the steps of sites that hold little, if there are very many: of these the sum is kept, by owner. Their names must be known.
  prune(tables: Tables): void {
    this.sites.prune(tables, this.steps);
  }

  private *all(): Iterable<Series> {
    yield this.total;
    yield* this.nodes.values();
    yield* this.sites.series();
  }

  private halve(): void {
    for (const series of this.all()) series.halve(this.steps);
    for (let i = 0; i < this.steps / 2; i++) this.times[i] = this.times[Math.min(2 * i + 1, this.steps - 1)] as number;
    this.steps = Math.ceil(this.steps / 2);
    this.stepUS *= 2;
  }

  // opened are the sites as they were when the page was opened.
  opened(): SiteColumns {
    return this.sites.columns('first');
  }

  // latest are the sites as the last tick has them.
  latest(): SiteColumns {
    return this.sites.columns('last');
  }

  // siteAllocated is about how many bytes a site has allocated between two moments, null if that is not known.
  siteAllocated(site: number, fromUS: number, toUS: number): number | null {
    const series = this.sites.get(site);
    return series ? this.allocatedAt(series, toUS) - this.allocatedAt(series, fromUS) : null;
  }

  // allocatedAt is between two steps what a line between them says.
  private allocatedAt(series: Series, us: number): number {
    let step = 1;
    while (step < this.steps && (this.times[step] as number) < us) step++;
    if (step >= this.steps) return series.at(this.steps - 1).allocated;
    const [begin, end] = this.times.subarray(step - 1, step + 1) as unknown as [number, number];
    const before = series.at(step - 1).allocated,
      after = series.at(step).allocated;
    return before + (after - before) * Math.max(0, Math.min(1, (us - begin) / (end - begin)));
  }

  // nodeValues are the last values of a node, at most so many, for a small plot.
  nodeValues(node: number, most: number): number[] {
    return this.lastOf(this.nodes.get(node), most);
  }

  siteValues(site: number, most: number): number[] {
    return this.lastOf(this.sites.get(site), most);
  }

  private lastOf(series: Series | undefined, most: number): number[] {
    return series ? series.values(Math.max(0, this.steps - most), this.steps) : [];
  }

  // node is what the last tick says of one.
  node(node: number): (NodeFigures & { live: number; allocated: number }) | null {
    const series = this.nodes.get(node),
      figures = this.figures.get(node);
    return series && figures ? { ...figures, ...series.last } : null;
  }

  // nodeRate is how many bytes a node has allocated in a second, over the last time.
  nodeRate(node: number, overUS: number): number {
    const series = this.nodes.get(node),
      steps = Math.min(this.steps - 1, Math.max(1, Math.round(overUS / this.stepUS)));
    if (!series || steps < 1) return 0;
    const last = series.at(this.steps - 1).allocated,
      before = series.at(this.steps - 1 - steps).allocated;
    const us = (this.times[this.steps - 1] as number) - (this.times[this.steps - 1 - steps] as number);
    return us > 0 ? (last - before) / (us / 1e6) : 0;
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
    const rest = groups.filter((group) => group.rest > 0),
      own = groups.filter((group) => group.rest === 0);
    if (rest.length > 0 || own.length > maxGroups) {
      rest.push(...own.splice(maxGroups - 1));
      own.push(together(rest, this.steps));
    }
    return {
      known: { texts: 0, frames: 0, sites: 0, nodes: 0 },
      by,
      begin_us: this.beginUS,
      step_us: this.stepUS,
      total: this.group(-1, '', this.total).values,
      groups: own,
    };
  }

  // group has the most live bytes of each step; but of the first one those when the page was opened, and of the last one, which is not over,
  // those of now.
  private group(site: number, name: string, ...of: Series[]): TimelineGroup {
    const values = new Array<number>(this.steps).fill(0);
    const ends = { first: 0, last: 0 };
    for (const series of of) {
      series.values(0, this.steps).forEach((value, i) => (values[i] = (values[i] as number) + value));
      ends.first += series.first.live;
      ends.last += series.last.live;
    }
    return { site, name, rest: 0, ...ended(values, ends.first, ends.last) };
  }

  private bySite(): TimelineGroup[] {
    const groups = [...this.sites.own()].map(([site, series]) => this.group(site, '', series));
    const { rest, count } = this.sites.others();
    if (count > 0) groups.push({ ...this.group(-1, '', ...rest.values()), rest: count });
    return groups;
  }

  private byOwner(tables: Tables): TimelineGroup[] {
    const owners = new Map<string, Series[]>();
    const put = (owner: string, series: Series) => {
      const list = owners.get(owner);
      if (list) list.push(series);
      else owners.set(owner, [series]);
    };
    for (const [site, series] of this.sites.own()) put(tables.owner(site), series);
    const { rest, ownerless } = this.sites.others();
    for (const [owner, series] of rest) if (owner !== null) put(owner, series);
    const groups = [...owners].map(([owner, list]) => this.group(-1, owner, ...list));
    const others = rest.get(null);
    if (others) groups.push({ ...this.group(-1, '', others), rest: ownerless });
    return groups;
  }

  // children are the nodes without what their children have, so that the groups add up.
  private children(tables: Tables): TimelineGroup[] {
    const own = new Map<number, { values: number[]; first: number; last: number }>();
    for (const [node, series] of this.nodes)
      own.set(node, { values: series.values(0, this.steps), first: series.first.live, last: series.last.live });
    for (const [node, series] of this.nodes) {
      const parent = own.get(tables.parent(node));
      if (!parent) continue;
      series.values(0, this.steps).forEach((value, i) => (parent.values[i] = Math.max(0, (parent.values[i] as number) - value)));
      parent.first = Math.max(0, parent.first - series.first.live);
      parent.last = Math.max(0, parent.last - series.last.live);
    }
    return [...own].map(([node, { values, first, last }]) => ({
      site: -1,
      name: tables.path(node),
      rest: 0,
      ...ended(values, first, last),
    }));
  }
}

function ended(values: number[], first: number, last: number): { values: number[]; peak: number } {
  const peak = values.reduce((a, b) => Math.max(a, b), 0);
  if (values.length > 1) values[0] = first;
  if (values.length > 0) values[values.length - 1] = last;
  return { values, peak };
}

function together(groups: TimelineGroup[], steps: number): TimelineGroup {
  const values = new Array<number>(steps).fill(0);
  for (const group of groups) group.values.forEach((value, i) => (values[i] = (values[i] as number) + value));
  const rest = groups.reduce((sum, group) => sum + Math.max(1, group.rest), 0);
  return { site: -1, name: '', rest, peak: values.reduce((a, b) => Math.max(a, b), 0), values };
}
