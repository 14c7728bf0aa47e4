// Package page has what the live page is made of: the JSON that its browser side reads, and the Source that it comes from.
// exporters/debugpage serves it of a running process, and the command alloctrace of a recording or a black box.
//
// # The contract
//
// It is between the page and its program, which are of one version: others use what the packages export, or alloctrace -json.
//
// All URLs are relative to the page. All answers are JSON objects, as documented here. What is long is a set of columns:
// arrays of one length, of which the elements of one index are one row. An array of a column that is not known is null.
//
//	GET  api/page                          Page
//	GET  api/tables?sites=N&texts=N&frames=N&nodes=N    Tables, from these indexes on; 0 if they are left out
//	GET  api/snapshot?at=US                Snapshot; at is for recordings
//	GET  api/stream                        server-sent events named tick, one a second, each of which is a Tick; live mode alone
//	GET  api/blocks?n=N                    Blocks, N at most
//	GET  api/map                           Map
//	GET  api/events?n=N                    Events, the last N
//	GET  api/timeline?by=site&steps=N      Timeline; by is site, child or region; live pages make it of the stream
//	GET  api/between?from=US&to=US         Between: what was acquired in a span of time
//	GET  api/lifetimes                     Lifetimes
//	GET  api/leaks                         Leaks
//	POST api/mark                          Leaks, as they are once growth is counted from now on; live mode alone
//	POST api/unreachable                   Unreachable; stops the program for a moment; live mode alone
//	GET  save                              the page as one HTML file
//	POST save                              the same, with the Timeline in the request's body, which live pages have made
//
// A page that was saved has one element, <script type="application/json" id="saved">, whose text is SavedAnswers: the answers by their URLs
// without parameters. It has no api/stream.
//
// An error is a status of 400 or more, with an Error. 404 is that of a tab that has no data, for the reason that api/page says too.
//
// Sites, nodes, texts and frames are numbers: indexes into Tables, which only grow. An answer that names one that the browser does not know
// has a Known with larger lengths: then it gets the rest of the tables. Minus one stands for none, unless said otherwise.
//
// Bytes are granted bytes, integers. Counts and bytes of sites are estimates, rounded, unless Page.Rate is 1. A time ends in _us: it is
// in microseconds since Page.Began, and can be less than 0. A duration ends in _us too, or in _ns for nanoseconds.
//
// Names, functions and files are valid UTF-8 of up to 1 KiB, and may have any characters: show them as text, never as HTML.
package page

import "github.com/alloctrace/alloctrace/exporters/rss"

// What a Page shows.
const (
	Live      = "live"      // a process that runs
	Recording = "recording" // a file of exporters/recording
	BlackBox  = "blackbox"  // a file of hooks/blackbox
	Saved     = "saved"     // a page that was saved; Page.Saved has what of
)

// Page says what the page is of, and what it can show.
type Page struct {
	ID      string `json:"id"`      // of this process, or file: indexes into Tables are of no use with another
	Title   string `json:"title"`   // the program's name, or the file's
	Mode    string `json:"mode"`    // live, recording, blackbox or saved
	Of      string `json:"of"`      // if Mode is saved: live, recording or blackbox; else as Mode
	Go      string `json:"go"`      // its version
	Program string `json:"program"` // the path of the main package, "" if it is not known
	PID     int    `json:"pid"`

	Began   string `json:"began"`    // RFC 3339, UTC: times count from here
	BeganMS int64  `json:"began_ms"` // the same, in milliseconds since 1970
	NowUS   int64  `json:"now_us"`   // when this was answered; of a file, its end
	FirstUS int64  `json:"first_us"` // from when on something is known: of a live page that of its first tick, of a recording its first event

	Rate int64 `json:"rate"` // one block was sampled for so many bytes; 1 if all were; 0 without a profile

	// Tabs says what can be shown: for each of overview, timeline, flame, map, lifetimes, leaks, events, and for the action unreachable,
	// "" if there is data, or else a sentence that says what to switch on.
	Tabs map[string]string `json:"tabs"`

	// Flame are the measures that the flame graph has: some of live, allocated, peak, pinned, lifetime. Those are columns of SiteColumns.
	Flame []string `json:"flame"`

	// Notes are sentences to be shown on top: such as that a file is damaged, and what is not known because of that.
	Notes []string `json:"notes"`
}

// Known is how long the Tables are that an answer needs.
type Known struct {
	Texts  int `json:"texts"`
	Frames int `json:"frames"`
	Sites  int `json:"sites"`
	Nodes  int `json:"nodes"`
}

// Tables are what other answers name by indexes. What is known already is left out: From says how much that is.
type Tables struct {
	From   Known    `json:"from"`
	Texts  []string `json:"texts"` // text 0 is ""
	Frames Frames   `json:"frames"`
	Sites  Sites    `json:"sites"`
	Nodes  Nodes    `json:"nodes"`
}

// Frames are columns of functions that were called, and where in them.
type Frames struct {
	Function []int `json:"function"` // text: with the path of its package
	File     []int `json:"file"`     // text
	Line     []int `json:"line"`
}

// Sites are columns of places that allocate: the calls, and for whom.
type Sites struct {
	Owner []int   `json:"owner"` // text: the child Proxy, or what Options.Owner of the heap profile says; 0 if it is nobody's
	Stack [][]int `json:"stack"` // frames, the innermost call first; empty if they are not known
	Cut   []bool  `json:"cut"`   // the stack may have had more frames
}

// Nodes are columns of the tree of Proxies and their children. A parent comes before its children. Children of one name and parent are one node.
type Nodes struct {
	Parent []int `json:"parent"` // node; -1 of a Proxy
	Name   []int `json:"name"`   // text; 0 if it has none
}

// Snapshot is the numbers of one moment.
type Snapshot struct {
	Known Known `json:"known"`
	AtUS  int64 `json:"at_us"`

	Total Stats       `json:"total"` // of all Proxies
	Nodes NodeColumns `json:"nodes"`
	Sites SiteColumns `json:"sites"` // those that have allocated, the most live bytes first; empty without a profile

	// Classes are how many blocks have a size above half of Size, and up to it. Null if it is not known.
	Classes *Classes `json:"classes"`

	// Rate is by how much Total has changed in a second, over the last RateUS; 0 of RateUS means that it is not known.
	RateUS         int64   `json:"rate_us"`
	AllocatedRate  float64 `json:"allocated_per_second"` // bytes
	FreedRate      float64 `json:"freed_per_second"`
	AllocationRate float64 `json:"allocations_per_second"` // blocks

	// RSS is where the memory of the process is: docs/fields.md and package exporters/rss have its names. Null where it is not known.
	RSS    *rss.Report `json:"rss"`
	RSSWhy string      `json:"rss_why"` // why it is not known
}

// Stats are the numbers of a Proxy.
type Stats struct {
	Live       int64 `json:"live"` // bytes
	LiveBlocks int64 `json:"live_blocks"`
	Slack      int64 `json:"slack"`      // bytes of Live that go beyond what was asked for; 0 if it is not known
	Peak       int64 `json:"peak"`       // the most bytes that were live
	PeakBound  int64 `json:"peak_bound"` // give or take
	Allocated  int64 `json:"allocated"`  // bytes, in all
	Freed      int64 `json:"freed"`      // bytes, in all

	Allocations         int64 `json:"allocations"` // that succeeded
	Reallocations       int64 `json:"reallocations"`
	Frees               int64 `json:"frees"`
	FailedAllocations   int64 `json:"failed_allocations"`
	FailedReallocations int64 `json:"failed_reallocations"`
	FailedFrees         int64 `json:"failed_frees"`
}

// NodeColumns are Stats of nodes, those of their children included, as columns.
type NodeColumns struct {
	Node       []int   `json:"node"`
	Live       []int64 `json:"live"`
	LiveBlocks []int64 `json:"live_blocks"`
	Slack      []int64 `json:"slack"`
	Peak       []int64 `json:"peak"`
	PeakBound  []int64 `json:"peak_bound"`
	Allocated  []int64 `json:"allocated"`
	Freed      []int64 `json:"freed"`

	Allocations         []int64 `json:"allocations"`
	Reallocations       []int64 `json:"reallocations"`
	Frees               []int64 `json:"frees"`
	FailedAllocations   []int64 `json:"failed_allocations"`
	FailedReallocations []int64 `json:"failed_reallocations"`
	FailedFrees         []int64 `json:"failed_frees"`

	Limit []int64 `json:"limit"` // bytes that may be live, by a blockalloc.Limit; -1 without
}

// SiteColumns are the numbers of sites. Bytes and blocks are estimates unless Page.Rate is 1; LiveError is the standard error of Live.
type SiteColumns struct {
	Site            []int   `json:"site"`
	Live            []int64 `json:"live"` // bytes
	LiveBlocks      []int64 `json:"live_blocks"`
	LiveError       []int64 `json:"live_error"`
	Allocated       []int64 `json:"allocated"` // bytes, in all
	AllocatedBlocks []int64 `json:"allocated_blocks"`

	Peak     []int64 `json:"peak"`     // bytes that were live when most was live of all; null if it is not known
	PeakUS   int64   `json:"peak_us"`  // when that was
	Pinned   []int64 `json:"pinned"`   // free bytes of Pool and Slab that blocks of the site keep from others; null if it is not known
	Lifetime []int64 `json:"lifetime"` // the bytes of blocks that have ended, times how long they have lived, in byte-milliseconds; null if it is not known
}

// Classes are columns of sizes of blocks.
type Classes struct {
	Size        []int64 `json:"size"` // bytes: a power of two
	Live        []int64 `json:"live"` // blocks; null if it is not known
	Allocations []int64 `json:"allocations"`
}

// Tick is what has become of the numbers since the Tick before. The first of a stream is whole.
type Tick struct {
	ID    string `json:"id"` // of Page: if it is another, load the page anew
	Known Known  `json:"known"`
	AtUS  int64  `json:"at_us"`
	Whole bool   `json:"whole"` // it has all nodes and sites; otherwise those that have changed

	Total Stats `json:"total"`

	Node          []int   `json:"node"`
	NodeLive      []int64 `json:"node_live"` // bytes, children included
	NodeAllocated []int64 `json:"node_allocated"`
	NodeBlocks    []int64 `json:"node_blocks"` // that are live
	NodePeak      []int64 `json:"node_peak"`   // bytes
	NodeFailures  []int64 `json:"node_failures"`

	Site          []int   `json:"site"`
	SiteLive      []int64 `json:"site_live"`
	SiteAllocated []int64 `json:"site_allocated"`
}

// NodeColumns returns where the columns of nodes are.
func (t *Tick) NodeColumns() [5]*[]int64 {
	return [...]*[]int64{&t.NodeLive, &t.NodeAllocated, &t.NodeBlocks, &t.NodePeak, &t.NodeFailures}
}

// Blocks are columns of the live blocks that were sampled, the oldest first.
type Blocks struct {
	Known   Known `json:"known"`
	AtUS    int64 `json:"at_us"`
	All     int64 `json:"all"`      // how many there are; if that is more than rows, those with the most bytes are here
	AddrMin int64 `json:"addr_min"` // Addr counts from here: the sum is exact in a float64

	Addr        []int64   `json:"addr"`
	Size        []int64   `json:"size"`
	Weight      []float64 `json:"weight"` // how many blocks of its size it stands for; null if each stands for itself
	AllocatedUS []int64   `json:"allocated_us"`
	Site        []int     `json:"site"`
}

// Map is how memory lies: the spans of each Pool and Slab below the Proxies, and the live blocks in them.
type Map struct {
	Known      Known          `json:"known"`
	AtUS       int64          `json:"at_us"`
	Allocators []MapAllocator `json:"allocators"`
}

// MapAllocator is one Pool or Slab.
type MapAllocator struct {
	Name     string `json:"name"`     // its type and number, such as "Pool 1"
	Kind     string `json:"kind"`     // "Pool", "Slab", or the name of another type
	Span     string `json:"span"`     // what its spans are called: "run", "block"
	Reserved int64  `json:"reserved"` // bytes of address space; 0 if it is not known
	AddrMin  int64  `json:"addr_min"` // Addr counts from here
	Spans    Spans  `json:"spans"`    // by address
	Blocks   Placed `json:"blocks"`   // the live ones that were sampled, by address
	Omitted  int64  `json:"omitted"`  // live blocks in them that were sampled and are left out
}

// Spans are columns of memory that was cut into blocks of one size. Where nothing of a span is live, it is kept for reuse.
type Spans struct {
	Addr  []int64 `json:"addr"`
	Size  []int64 `json:"size"`  // bytes
	Free  []int64 `json:"free"`  // bytes in no live block
	Dirty []int64 `json:"dirty"` // bytes of Free that still have memory behind them; the rest is clean; null if it is not known
	Block []int64 `json:"block"` // bytes of each of its blocks; null if it is not known
	Live  []int64 `json:"live"`  // live blocks, whether sampled or not; null if it is not known
}

// Placed are columns of live blocks that lie in spans.
type Placed struct {
	Addr        []int64 `json:"addr"`
	Size        []int64 `json:"size"`
	Span        []int   `json:"span"` // its row in Spans
	AllocatedUS []int64 `json:"allocated_us"`
	Site        []int   `json:"site"`
}

// Events are columns of the last events, in order.
type Events struct {
	Known   Known    `json:"known"`
	AtUS    int64    `json:"at_us"`
	First   int64    `json:"first"`    // the number of the first row, of all that were observed
	All     int64    `json:"all"`      // events that were observed
	BeginNS int64    `json:"begin_ns"` // since Page.Began: the time of the first row
	AddrMin int64    `json:"addr_min"` // Addr counts from here
	Kinds   []string `json:"kinds"`    // what Kind means: kinds[1] is "allocated", and so on; kinds[0] is "missing"
	Timed   bool     `json:"timed"`    // times are known

	DeltaNS []int64 `json:"delta_ns"` // since the row before; 0 of the first
	Kind    []int   `json:"kind"`     // index of Kinds
	Addr    []int64 `json:"addr"`     // -AddrMin where there is none, as of a failed allocation
	Size    []int64 `json:"size"`     // bytes; of missing events, how many
	Owner   []int   `json:"owner"`    // text: the child; 0 if it is of none
	Site    []int   `json:"site"`     // of who acquired the block; -1 if it is not known; null if it is not known of any

	// Errors are of some of the failures.
	ErrorRow  []int    `json:"error_row"`
	ErrorText []string `json:"error_text"`
}

// Timeline is the most live bytes of each step of time, and of the last one those of the end.
type Timeline struct {
	Known   Known           `json:"known"`
	By      string          `json:"by"` // site, child or region
	BeginUS int64           `json:"begin_us"`
	StepUS  float64         `json:"step_us"` // of a short recording with a fraction
	Total   []int64         `json:"total"`   // of each step; it can be less than the sum of the groups
	Groups  []TimelineGroup `json:"groups"`  // the largest peak first; 200 at most, the rest of them is the last, with Rest set
}

// TimelineGroup is a site, a child or a region.
type TimelineGroup struct {
	Site   int     `json:"site"` // -1 unless By is site
	Name   string  `json:"name"` // of a child or region; "" if it is of none
	Rest   int     `json:"rest"` // how many groups this one is the sum of; 0 if it is one
	Peak   int64   `json:"peak"`
	Values []int64 `json:"values"` // of each step
}

// Between is what was acquired in a span of time, by site, and what of that is live at AtUS: of a live page now, of a recording at ToUS. The
// most live bytes come first.
type Between struct {
	Known  Known `json:"known"`
	FromUS int64 `json:"from_us"`
	ToUS   int64 `json:"to_us"`
	AtUS   int64 `json:"at_us"`

	Site            []int   `json:"site"`
	Live            []int64 `json:"live"` // bytes
	LiveBlocks      []int64 `json:"live_blocks"`
	Allocated       []int64 `json:"allocated"` // bytes, also of what is not live any more; null of a live page, which does not know
	AllocatedBlocks []int64 `json:"allocated_blocks"`
}

// Lifetimes are how long the blocks of sites live. The most bytes come first.
type Lifetimes struct {
	Known  Known   `json:"known"`
	AtUS   int64   `json:"at_us"`
	MostUS []int64 `json:"most_us"` // the classes: blocks that have lived so long at most, and longer than the class before
	Rows   []Lived `json:"rows"`
}

// Lived is how long the blocks of one site live.
type Lived struct {
	Site       int     `json:"site"`
	Ended      []int64 `json:"ended"` // blocks that were freed, by class; short by the zeros at its end
	Live       []int64 `json:"live"`  // blocks that are live, by class of their age; likewise
	EndedBytes int64   `json:"ended_bytes"`
	LiveBytes  int64   `json:"live_bytes"`

	HalfUS int64 `json:"half_us"` // half of the blocks live up to so long; -1 if that is not known
	MostUS int64 `json:"most_us"` // 99 % do; likewise

	FreedBy       []int `json:"freed_by"`        // frames of the calls that have freed most of them, the innermost first; empty if that is not known
	FreedByBlocks int64 `json:"freed_by_blocks"` // so many
	Elsewhere     int64 `json:"freed_elsewhere"` // blocks that another goroutine has freed than has allocated them, at least

	Advice string `json:"advice"` // a sentence, or ""
}

// Leaks are the sites that have live blocks, the most suspicious first.
type Leaks struct {
	Known   Known  `json:"known"`
	AtUS    int64  `json:"at_us"`
	SinceUS int64  `json:"since_us"` // growth counts from here
	Caution string `json:"caution"`  // a sentence to be shown with it: that a block is live does not say that it leaks

	// Suspicion is 3 where something says that blocks are not given back: blocks have been added for as long as it was looked at, and none was freed;
	// 2 where more were added than freed, by more than chance; 1 where blocks have lived longer than any that was freed; 0 where nothing does.
	Suspicion []int    `json:"suspicion"`
	Why       []string `json:"why"` // a sentence for it; "" if Suspicion is 0

	Site       []int   `json:"site"`
	Live       []int64 `json:"live"` // bytes
	LiveBlocks []int64 `json:"live_blocks"`
	Before     []int64 `json:"before"`    // bytes that were live at SinceUS
	Freed      []int64 `json:"freed"`     // of those, what was freed
	Added      []int64 `json:"added"`     // bytes that were allocated since, and are live
	Noise      []int64 `json:"noise"`     // so many bytes more can be chance, of a site that goes up and down; null of a recording
	OldestUS   []int64 `json:"oldest_us"` // when its oldest live block was allocated
	NewestUS   []int64 `json:"newest_us"`
	LongestUS  []int64 `json:"longest_us"` // the longest life of a block that was freed; -1 if none was; null if it is not known
	Outlived   []int64 `json:"outlived"`   // live blocks that have lived longer than that; null if it is not known

	Quarters [][]int64 `json:"quarters"` // the live bytes after a quarter of a recording, a half, three quarters, and all; null of a live page
}

// Unreachable are the live blocks that nothing points to any more, the most bytes first.
type Unreachable struct {
	Known   Known  `json:"known"`
	AtUS    int64  `json:"at_us"`
	Looked  int64  `json:"looked"`   // at so many blocks
	PauseUS int64  `json:"pause_us"` // the longest time for which the program was stopped
	Text    string `json:"text"`     // the same for people, with what waiting goroutines alone hold

	Site     []int   `json:"site"`
	Blocks   []int64 `json:"blocks"`
	Bytes    []int64 `json:"bytes"`
	OldestUS []int64 `json:"oldest_us"`
}

// Error says why there is no answer, and what to do about it.
type Error struct {
	Error string `json:"error"`
}

// SavedAnswers is what a saved page has: the answers by their URLs without parameters, such as "api/page".
type SavedAnswers map[string]any
