package main

import (
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// TestRecordingTexts: the texts are as they were, of everything that they can have.
func TestRecordingTexts(t *testing.T) {
	const mib = 1 << 20
	stack := []recording.Frame{
		{Function: "example.com/cache.(*Cache).load", File: `C:\src\cache.go`, Line: 88}, {Function: "example.com/cache.New[...]", File: "/src/cache.go", Line: 7}, {Function: "main.main", File: "/src/main\n.go", Line: 3},
	}
	amount := func(blocks, bytes int64) history.Amount { return history.Amount{Blocks: blocks, Bytes: bytes} }
	cache := &history.Site{Proxy: "mem", Child: "cache", Stack: stack, Live: amount(3, 3*mib), Allocated: amount(5, 5*mib), Freed: amount(2, 2*mib), Longest: time.Second}
	other := &history.Site{Live: amount(1, mib), Allocated: amount(1, mib)}
	unknown := history.Unknown{
		Dropped: 1, Gaps: 2, Damage: []string{"a.alloctrace: damaged\nfrom byte 7 on"}, Older: amount(1, 100), Unmatched: amount(2, 200), Lost: amount(3, 300), Uncertain: amount(4, 400),
	}
	const notKnown = `
not known:
  a.alloctrace: damaged\nfrom byte 7 on
  1 event was dropped at 1 place: what comes after is uncertain
  100 B in 1 block was acquired before the recording and released in it: before that they are not counted as live
  200 B in 2 blocks were released without an acquisition that is in the recording
  300 B in 3 blocks were acquired, and their release is not in the recording, but another block at their address is
  400 B in 4 blocks were counted as live, and may have been released where events are missing
`
	r := readingFlags(flag.NewFlagSet("", flag.ContinueOnError), true)
	r.most, r.calls = 1, 2
	at := time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct{ got, want string }{
		"info": {infoText(&history.Summary{
			Files: []string{"a.old", "a"}, Size: 1000, First: 1500 * time.Microsecond, Last: 3*time.Minute + 123456789, Sites: 2,
			Header: recording.Header{Program: "example.com/server", PID: 4711, Go: "go1.26.8", GOOS: "linux", GOARCH: "arm64", Began: at, FreeStacks: true},
			Counts: history.Counts{Events: 300, Allocations: 1, Reallocations: 2, Frees: 3, AllocateFailures: 4, ReallocateFailures: 5, FreeFailures: 6},
			Owners: []history.Owner{{Proxy: "mem", Child: "cache", Allocated: amount(5, 5*mib), Live: amount(3, 3*mib), Peak: amount(4, 4*mib), PeakAt: time.Second}, {Child: "x"}, {}},
			Live:   amount(4, 4*mib), Peak: amount(5, 5*mib), PeakAt: 2 * time.Second, Unknown: unknown,
		}), `a.old, a: 1000 B, 3.3 bytes an event
process 4711, example.com/server, go1.26.8, linux/arm64
recording began 2026-11-30 06:00:00.000 UTC, and has 1.5ms to 3m0.12s of it
not closed: the process was killed, has crashed, or still runs; what came after the last flush is missing
stacks of who freed, 2 sites

300 events: 1 allocation, 2 reallocations, 3 frees; failures: 4 to allocate, 5 to reallocate, 6 to free
live at the end: 4 MiB in 4 blocks; at the peak, at 2s: 5 MiB in 5 blocks
  "mem", child "cache": live 3 MiB in 3 blocks, peak 4 MiB in 4 blocks at 1s, allocated 5 MiB in 5 blocks
  child "x": live 0 B in 0 blocks, peak 0 B in 0 blocks at 0s, allocated 0 B in 0 blocks
  a Proxy without a name: live 0 B in 0 blocks, peak 0 B in 0 blocks at 0s, allocated 0 B in 0 blocks
  if one of these Proxies is around another, its memory is counted twice in all: use -proxy
` + notKnown},
		"top": {topText(&history.Ranking{Live: amount(4, 4*mib), Sites: []history.Ranked{{Site: cache}, {Site: other}}, Unknown: unknown}, "live", r), `live at the end: 4 MiB in 4 blocks, by 2 sites
  75.0 %, 3 MiB in 3 blocks of "mem", child "cache": cache.(*Cache).load (cache.go:88), cache.New[...] (cache.go:7), and 1 more call
  and 1 MiB in 1 block by 1 more site
` + notKnown},
		"leaks": {leaksText(&history.Leaks{
			Moments: [4]time.Duration{1e9, 2e9, 3e9, 4e9}, Live: amount(4, 4*mib), Unknown: unknown,
			Sites: []history.Leak{{Site: cache, Oldest: 5e8, Newest: 35e8, Outlived: 1, Uncertain: amount(1, mib), Quarters: [4]int64{0, mib, 2 * mib, 3 * mib}, Grows: true}, {Site: other}},
		}, r), `live at the end, at 4s: 4 MiB in 4 blocks, by 2 sites
  grows: 3 MiB in 3 blocks of "mem", child "cache": cache.(*Cache).load (cache.go:88), cache.New[...] (cache.go:7), and 1 more call
    live were 0 B at 1s, 1 MiB at 2s, 2 MiB at 3s, 3 MiB at 4s
    the oldest has lived for 3.5s, the newest for 500ms; 2 of 5 blocks were released, after 1s at most, and 1 have lived for longer
    of these, 1 MiB in 1 block may have been released where events are missing
  and 1 MiB in 1 block by 1 more site

That a block is live does not say that it leaks: a cache has such blocks too.
` + notKnown},
		"timeline": {timelineText(&history.Timeline{
			Step: time.Second, Total: history.Group{Peak: 60, Live: 20, Values: []int64{0, 60, 20}}, Unknown: unknown,
			Groups: []history.Group{{Site: cache, Peak: 60, Live: 20, Values: []int64{0, 60, 1}}, {Peak: 3}, {Peak: 2}},
		}, "site", r), `the most live bytes of each 1s: peak 60 B, 20 B at the end
        0s         0 B
        1s        60 B  ############################################################
        2s        20 B  ####################

by site, the largest peak first, each in proportion to the first:
      peak         end
      60 B        20 B   █▁  "mem", child "cache": cache.(*Cache).load (cache.go:88), cache.New[...] (cache.go:7), and 1 more call
and 2 more, whose peaks are 3 B at most
` + notKnown},
		"diff": {diffText(&history.Comparison{
			Before: amount(2, mib), After: amount(1, 2*mib), First: &history.Unknown{Older: amount(2, 200)}, Unknown: history.Unknown{Older: amount(2, 200)},
			Sites: []history.Change{
				{Proxy: "mem", Child: "cache", Stack: stack, Before: amount(2, 3*mib), After: amount(1, mib), Change: amount(-1, -2*mib)}, {After: amount(2, 10), Change: amount(2, 10)}, {Change: amount(0, 7)},
			},
		}, [2]string{"a", "b"}, r), `live a: 1 MiB in 2 blocks
live b: 2 MiB in 1 block
changed by +1 MiB in -1 block, at 3 sites
  -2 MiB in -1 block, from 3 MiB to 1 MiB of "mem", child "cache": cache.(*Cache).load (cache.go:88), cache.New[...] (cache.go:7), and 1 more call
  and +17 B in +2 blocks at 2 more sites

sites of two recordings are the same if their functions are: lines are those of the second

not known of the first:
  200 B in 2 blocks were acquired before the recording and released in it: before that they are not counted as live

not known of the second:
  200 B in 2 blocks were acquired before the recording and released in it: before that they are not counted as live
`},
		"query": {queryText(&history.Found{Matched: amount(4, 100), Live: amount(1, 10), Unknown: unknown, Blocks: []history.Block{
			{Addr: 0x1000, Size: 10, Site: cache, Region: "GET /", Acquired: 1e9, Released: 2e9, Live: true}, {Addr: 0x2000, Size: 20, Site: other, Acquired: 1e9, Released: 15e8, Older: true},
			{Addr: 0x3000, Size: 30, Site: other, Released: 2e9, Lost: true},
		}}, r), `found: 100 B in 4 blocks; of them live at the end: 10 B in 1 block
  10 B at 0x1000 of "mem", child "cache", region "GET /", acquired at 1s, lives for 1s: cache.(*Cache).load (cache.go:88), cache.New[...] (cache.go:7), and 1 more call
  20 B at 0x2000, acquired before 1s, released after at least 500ms: unknown
  30 B at 0x3000, acquired at 0s, released after at most 2s: unknown
  and 1 more block
` + notKnown},
		"flame": {folded(t, fold(&history.Ranking{Sites: []history.Ranked{
			{Site: &history.Site{Stack: []recording.Frame{{Function: "a;b\n"}, {Function: "main.main"}}, Live: amount(1, 7)}}, {Site: &history.Site{Stack: []recording.Frame{{Function: "a;b\n", Line: 2}, {Function: "main.main"}}, Live: amount(1, 8)}},
			{Site: other},
		}}, "live")), "main.main;a:b\\n 15\nunknown 1048576\n"},
	} {
		if test.got != test.want {
			t.Errorf("%s is\n%s\nwant\n%s", name, test.got, test.want)
		}
	}
}

func folded(t *testing.T, stacks map[string]int64) string {
	var b strings.Builder
	if err := writeFolded(&b, stacks); err != nil {
		t.Error(err)
	}
	if err := writeFolded(broken{}, stacks); err == nil {
		t.Error("a writer that fails is not seen")
	}
	return b.String()
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
