package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

//go:noinline
func queryBriefly(t *testing.T, p *alloctrace.Proxy) {
	b := hold(t, p, 64)
	time.Sleep(50 * time.Microsecond)
	release(t, p, b)
}

//go:noinline
func release(t *testing.T, p *alloctrace.Proxy, b blockalloc.Block) {
	if err := p.Free(b); err != nil {
		t.Fatal(err)
	}
}

//go:noinline
func freeAtOnce(t *testing.T, p *alloctrace.Proxy) {
	b, err := p.Allocate(blockalloc.Layout{Size: 64, Align: 1})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Microsecond)
	if err := p.Free(b); err != nil {
		t.Fatal(err)
	}
}

//go:noinline
func keep(t *testing.T, p *alloctrace.Proxy) blockalloc.Block { return hold(t, p, 1000) }

// TestServeLives: of two Proxies at one site there is one row, of lifetimes and of leaks, with the sums. Where blocks live for a short time and
// are freed by who has allocated them, or may be, there is advice.
func TestServeLives(t *testing.T) {
	for _, freeStacks := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "lives.alloctrace")
		synctest.Test(t, func(t *testing.T) {
			rec, err := recording.Create(path, recording.Options{FlushEvery: time.Hour, FreeStacks: freeStacks})
			if err != nil {
				t.Fatal(err)
			}
			var mem [2]*alloctrace.Proxy
			for i := range mem {
				mem[i] = alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName([]string{"one", "two"}[i]), alloctrace.WithHooks(rec))
			}
			for i := range 100 {
				if i%10 == 3 {
					b := keep(t, mem[i/10%2])
					if i == 53 { // the longest of those that were released, of the other Proxy
						time.Sleep(20 * time.Second)
						release(t, mem[1], b)
					}
				}
				for j := range 4 {
					queryBriefly(t, mem[j%2])
					freeAtOnce(t, mem[j%2])
				}
				time.Sleep(time.Second)
			}
			if err := rec.Close(); err != nil {
				t.Fatal(err)
			}
		})
		in, err := history.Open(path, false)
		if err != nil {
			t.Fatal(err)
		}
		p := newRecordingPage(path, in)
		lifetimes, leaks := p.lifetimes(), p.leaks()
		tables := p.book.Tables(page.Known{})
		name := func(frames []int) string { return tables.Texts[tables.Frames.Function[frames[0]]] }
		seen := ""
		for _, row := range lifetimes.Rows {
			stack := tables.Sites.Stack[row.Site]
			of := name(stack[slices.IndexFunc(stack, func(f int) bool { return !strings.HasSuffix(name([]int{f}), ".hold") }):])
			freedBy := ""
			if len(row.FreedBy) > 0 {
				freedBy = name(row.FreedBy)
			}
			switch seen += of[strings.LastIndexByte(of, '.')+1:] + " "; {
			case strings.HasSuffix(of, ".keep"):
				if sumOf(row.Ended) != 1 || sumOf(row.Live) != 9 || row.Advice != "" || strings.HasSuffix(freedBy, ".release") != freeStacks {
					t.Errorf("%s: %+v", of, row)
				}
			case strings.HasSuffix(of, ".queryBriefly"):
				maybe := !freeStacks && strings.Contains(row.Advice, "99% live up to 64µs: if alloctrace.hold frees what it allocates, a blockalloc.Bump")
				if sumOf(row.Ended) != 400 || row.HalfUS != 64 || row.Advice != "" && !maybe || (row.FreedByBlocks == 400) != freeStacks {
					t.Errorf("%s: %+v", of, row)
				}
			default:
				if advice := map[bool]string{true: "99% live up to 64µs, and alloctrace.freeAtOnce frees", false: "99% live up to 64µs: if alloctrace.freeAtOnce frees"}[freeStacks]; sumOf(row.Ended) != 400 || !strings.HasPrefix(row.Advice, advice) || (freedBy == of) != freeStacks {
					t.Errorf("%s: %+v, want %s", of, row, advice)
				}
			}
		}
		if seen != "queryBriefly freeAtOnce keep " && seen != "freeAtOnce queryBriefly keep " {
			t.Errorf("the lifetimes are of %s", seen)
		}
		const outlived = 7 // of both, than the one that was released
		if len(leaks.Site) != 1 || leaks.Live[0] != 9000 || leaks.LiveBlocks[0] != 9 || leaks.LongestUS[0] != 20_000_000 || leaks.Outlived[0] != outlived || leaks.Quarters[0][3] != 9000 {
			t.Errorf("the leaks are %+v", leaks)
		}
	}
}
