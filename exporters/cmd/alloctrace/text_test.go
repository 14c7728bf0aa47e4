package main

import (
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
)

// TestText: the text is as it was.
func TestText(t *testing.T) {
	at := time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)
	frame := func(function, file string, line int) blackbox.Frame {
		return blackbox.Frame{Function: function, File: file, Line: line, PC: 1}
	}
	var stack []blackbox.Frame
	for range mostCalls + 1 {
		stack = append(stack, frame("example.com/index.(*Index).grow", `C:\src\index.go`, 42))
	}
	c := &blackbox.Contents{
		Damage: []string{"something\nis wrong"},
		PID:    17, Created: at, Written: at.Add(time.Second),
		Build:   blackbox.Build{Executable: "/bin/server", ID: "a/b", Go: "go1.26.8", Package: "example.com/server", Version: "v1.2.3"},
		Proxies: []blackbox.Proxy{{Stats: counter.Stats{LiveBytes: 4096, LiveBlocks: 1}}, {Name: "mem", Child: "cache"}},
		Omitted: 2,
		Live: blackbox.Sites{
			Time: at, Bytes: 4096, Blocks: 2, Omitted: 3,
			Sites: []blackbox.Site{{Blocks: 1, Bytes: 3000, Error: 100, Stack: stack}, {Blocks: 1, Bytes: 1096, Labels: []blackbox.Label{{Key: "allocator", Value: "cache"}}}},
		},
		Events: []blackbox.Event{
			{Time: at, Kind: alloctrace.Allocated, Addr: 64, Size: 64, Align: 64},
			{Time: at.Add(time.Millisecond), Kind: alloctrace.Freeing, Addr: 64, Size: 64, Align: 64, Child: "cache"},
			{Time: at.Add(3 * time.Millisecond), Kind: alloctrace.FreeFailed, Addr: 64, Size: 64, Align: 64, Err: "no\nluck"},
		},
		Gapless: 2,
	}
	const want = `damaged: something\nis wrong
process 17, /bin/server, example.com/server v1.2.3, go1.26.8
build ID a/b
from 2026-11-30 06:00:00.000 UTC
not closed: the process was killed, has crashed, or still runs

as of 2026-11-30 06:00:01.000 UTC:
all: live 4 KiB in 1 block, peak 0 B; 0 allocations, 0 reallocations, 0 frees, 0 failures; allocated 0 B, freed 0 B
"mem", child "cache": live 0 B in 0 blocks, peak 0 B; 0 allocations, 0 reallocations, 0 frees, 0 failures; allocated 0 B, freed 0 B
and the numbers of 2 more, for which the file had no room

live, 2026-11-30 06:00:00.000 UTC: 4 KiB in 2 blocks
  2.93 KiB ± 100 B in 1 block: index.(*Index).grow (index.go:42), index.(*Index).grow (index.go:42), index.(*Index).grow (index.go:42), index.(*Index).grow (index.go:42), index.(*Index).grow (index.go:42), index.(*Index).grow (index.go:42), index.(*Index).grow (index.go:42), index.(*Index).grow (index.go:42), and 1 more call
  1.07 KiB in 1 block, allocator="cache": unknown
  and less at 3 more sites

the last 2 of 3 events; the last one was 2026-11-30 06:00:00.003 UTC:
        -2ms freeing           64 B aligned to 64 B at 0x40 of "cache"
  before this some are missing, after it none
          0s free failed       64 B aligned to 64 B at 0x40: no\nluck
`
	var got strings.Builder
	if err := writeText(&got, c, 2); err != nil || got.String() != want {
		t.Errorf("%v; the text is\n%s\nwant\n%s", err, got.String(), want)
	}
}
