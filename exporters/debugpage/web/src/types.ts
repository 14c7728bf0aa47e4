// The answers of the server. exporters/internal/page/data.go documents them; here are their shapes.

export type Column = number[];
export type Optional = number[] | null;

export interface Known {
  texts: number;
  frames: number;
  sites: number;
  nodes: number;
}

export type Tab = 'overview' | 'timeline' | 'flame' | 'map' | 'lifetimes' | 'leaks' | 'events';
export type Measure = 'live' | 'allocated' | 'peak' | 'pinned' | 'lifetime';
export type By = 'site' | 'child' | 'region';

export interface Page {
  id: string;
  title: string;
  mode: 'live' | 'recording' | 'blackbox' | 'saved';
  of: string;
  go: string;
  program: string;
  pid: number;
  began: string;
  began_ms: number;
  now_us: number;
  first_us: number;
  rate: number;
  tabs: Record<string, string>;
  flame: Measure[] | null;
  notes: string[] | null;
}

export interface Tables {
  from: Known;
  texts: string[];
  frames: { function: Column; file: Column; line: Column };
  sites: { owner: Column; stack: number[][]; cut: boolean[] };
  nodes: { parent: Column; name: Column };
}

export interface Stats {
  live: number;
  live_blocks: number;
  slack: number;
  peak: number;
  peak_bound: number;
  allocated: number;
  freed: number;
  allocations: number;
  reallocations: number;
  frees: number;
  failed_allocations: number;
  failed_reallocations: number;
  failed_frees: number;
}

export type NodeColumns = { [field in keyof Stats]: Column } & { node: Column; limit: Column };

export interface SiteColumns {
  site: Column;
  live: Column;
  live_blocks: Column;
  live_error: Column;
  allocated: Column;
  allocated_blocks: Column;
  peak: Optional;
  peak_us: number;
  pinned: Optional;
  lifetime: Optional;
}

export interface RSS {
  rss: number;
  go_heap: number;
  go_other: number;
  tracked: number;
  files: number;
  unattributed: number;
  allocators: { name: string; live: number; slack: number; reserved: number; resident: number; assumed: boolean }[] | null;
  rest: { addr: number; size: number; resident: number; name: string }[] | null;
}

export interface Snapshot {
  known: Known;
  at_us: number;
  total: Stats;
  nodes: NodeColumns;
  sites: SiteColumns;
  classes: { size: Column; live: Optional; allocations: Column } | null;
  rate_us: number;
  allocated_per_second: number;
  freed_per_second: number;
  allocations_per_second: number;
  rss: RSS | null;
  rss_why: string;
}

export interface Tick {
  id: string;
  known: Known;
  at_us: number;
  whole: boolean;
  total: Stats;
  node: Column;
  node_live: Column;
  node_allocated: Column;
  node_blocks: Column;
  node_peak: Column;
  node_failures: Column;
  site: Column;
  site_live: Column;
  site_allocated: Column;
}

export interface Blocks {
  known: Known;
  at_us: number;
  all: number;
  addr_min: number;
  addr: Column;
  size: Column;
  weight: Optional;
  allocated_us: Column;
  site: Column;
}

export interface Spans {
  addr: Column;
  size: Column;
  free: Column;
  dirty: Optional;
  block: Optional;
  live: Optional;
}
export interface Placed {
  addr: Column;
  size: Column;
  span: Column;
  allocated_us: Column;
  site: Column;
}
export interface MapAllocator {
  name: string;
  kind: string;
  span: string;
  reserved: number;
  addr_min: number;
  spans: Spans;
  blocks: Placed;
  omitted: number;
}
export interface MemoryMap {
  known: Known;
  at_us: number;
  allocators: MapAllocator[] | null;
}

export interface Events {
  known: Known;
  at_us: number;
  first: number;
  all: number;
  begin_ns: number;
  addr_min: number;
  kinds: string[];
  timed: boolean;
  delta_ns: Column;
  kind: Column;
  addr: Column;
  size: Column;
  owner: Column;
  site: Optional;
  error_row: Optional;
  error_text: string[] | null;
}

export interface TimelineGroup {
  site: number;
  name: string;
  rest: number;
  peak: number;
  values: Column;
}
export interface Timeline {
  known: Known;
  by: string;
  begin_us: number;
  step_us: number;
  total: Column;
  groups: TimelineGroup[] | null;
}

export interface Between {
  known: Known;
  from_us: number;
  to_us: number;
  at_us: number;
  site: Column;
  live: Column;
  live_blocks: Column;
  allocated: Optional;
  allocated_blocks: Optional;
}

export interface Lived {
  site: number;
  ended: Column;
  live: Column;
  ended_bytes: number;
  live_bytes: number;
  half_us: number;
  most_us: number;
  freed_by: Optional;
  freed_by_blocks: number;
  freed_elsewhere: number;
  advice: string;
}
export interface Lifetimes {
  known: Known;
  at_us: number;
  most_us: Column;
  rows: Lived[] | null;
}

export interface Leaks {
  known: Known;
  at_us: number;
  since_us: number;
  caution: string;
  suspicion: Column;
  why: string[];
  site: Column;
  live: Column;
  live_blocks: Column;
  before: Column;
  freed: Column;
  added: Column;
  noise: Optional;
  oldest_us: Column;
  newest_us: Column;
  longest_us: Optional;
  outlived: Optional;
  quarters: number[][] | null;
}

export interface Unreachable {
  known: Known;
  at_us: number;
  looked: number;
  pause_us: number;
  text: string;
  site: Column;
  blocks: Column;
  bytes: Column;
  oldest_us: Column;
}
