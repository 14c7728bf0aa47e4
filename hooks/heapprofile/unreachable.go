package heapprofile

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/reach"
	"github.com/alloctrace/alloctrace/internal/text"
)

// Unreachable is the live blocks that nothing points to any more. It goes into JSON as it is.
type Unreachable struct {
	Report Report        `json:"report"`         // the blocks, by the calls that allocated them
	Held   []Held        `json:"held,omitempty"` // others, by the goroutine that alone leads to them, the one with the most bytes first
	Looked int64         `json:"looked"`         // how many sampled blocks were live all the while
	Pause  time.Duration `json:"pause_ns"`       // the longest time for which the program was stopped
}

// Held is the live blocks that only the stack of a waiting goroutine leads to: if it waits for ever, they have leaked with it.
type Held struct {
	Goroutine uint64        `json:"goroutine"`
	Reason    string        `json:"reason"`    // why it waits, as in a stack trace, such as "chan receive"
	Waited    time.Duration `json:"waited_ns"` // so long at least: as far as garbage collections have seen it
	Stack     []Frame       `json:"stack"`     // where it waits
	Started   []Frame       `json:"started"`   // the go statement; empty for the main goroutine
	Report    Report        `json:"report"`    // the blocks
}

// searching has a value while a search is under way, for two at once would see each other's lists.
var searching = make(chan struct{}, 1)

// Unreachable returns the live blocks that no Go object, variable, stack or reachable block has an address in. It runs two
// garbage collections, and reads a dump of the Go heap. It stops the program meanwhile: for about a second for each GiB of
// large objects that is live there, and for 3 seconds for each of objects of 64 bytes, of which a search takes 12 seconds in all. If it finds
// blocks, it does so again, and returns those that are unreachable in both, for an address may be on the way from one block
// to another. The memory of blocks is read while the program runs, and some times over if blocks are found. The dump is a file in [os.TempDir], as large as what is live on the Go heap, which is removed at the end. Calls wait for each other.
//
// Each aligned word that is an address in a block counts, of what type it may be. So a block that is returned has leaked, unless its address is only
// where that is not seen: in C, in integers with bits changed, in packed structs, in plugins, in variables without pointers behind 64 MiB of such,
// or in memory of an allocator that has no blocks here. If Rate was other than 1, that is also a block that was not sampled. A stale address can hide a leak until it is overwritten.
// Where addresses have 32 bits, any text or number can be one: a block of a megabyte or more is seldom found.
//
// Go 1.26 and 1.27 end the program, by "dumpgs in STW - bad status", if a goroutine comes back from a system call in the moment
// in which the dump reaches it: of 300 that did so during each dump, one dump in 400 to 1,700. So it is for tests, and for one
// instance of a service rather than for all. After a goroutineleak profile that has found something they would always do so: then
// Unreachable is an error instead. Where Go writes no dump, such as on js, the error wraps [errors.ErrUnsupported].
func (p *Profile) Unreachable(ctx context.Context) (Unreachable, error) {
	wipe()
	u := new(Unreachable) // not in this frame, which was not wiped
	err := p.unreachable(ctx, u)
	return *u, err
}

func (p *Profile) unreachable(ctx context.Context, u *Unreachable) error {
	select {
	case searching <- struct{}{}:
		defer func() { <-searching }()
	case <-ctx.Done():
		return fmt.Errorf("heapprofile: Unreachable: %w: another search is under way", context.Cause(ctx))
	}
	found, err := p.search(ctx, u)
	if err == nil && slices.ContainsFunc(slices.Collect(maps.Values(found)), func(by *reach.Goroutine) bool { return by == nil }) {
		wipe() // a collection may have moved the stack to where another one was
		var again map[uint64]*reach.Goroutine
		again, err = p.search(ctx, u)
		maps.DeleteFunc(again, func(serial uint64, by *reach.Goroutine) bool {
			was, ok := found[serial]
			return by == nil && (!ok || was != nil)
		})
		found = again
	}
	if err != nil {
		*u = Unreachable{}
		return fmt.Errorf("heapprofile: Unreachable: %w", err)
	}
	p.describe(u, found)
	return nil
}

// wipe overwrites what calls that have ended have left on the stack, where the frames of a search will be.
//
//go:noinline
func wipe() {
	var area [8 << 10]byte
	wiped(&area)
}

//go:noinline
func wiped(*[8 << 10]byte) {}

// search returns the blocks that are unreachable, or else the goroutine that holds them, by their serial numbers.
func (p *Profile) search(ctx context.Context, u *Unreachable) (found map[uint64]*reach.Goroutine, err error) {
	done := make(chan struct{})
	go func() { // whose stack has addresses of blocks, and is gone when the heap is dumped again
		defer close(done)
		var pause time.Duration
		last := p.serial.Load()
		pause, err = reach.Dump(ctx, func(dump io.Reader) error {
			all := p.blocks()
			blocks := make([]reach.Block, len(all))
			for i, b := range all {
				blocks[i] = reach.Block{Addr: b.addr, Size: b.size}
			}
			reached, err := reach.Find(ctx, dump, blocks)
			if err != nil {
				return err
			}
			found, u.Looked = make(map[uint64]*reach.Goroutine), 0
			for i, r := range reached {
				if all[i].serial > last {
					continue // it is younger than the dump
				}
				u.Looked++
				if !r.Yes || r.By != nil {
					found[all[i].serial] = r.By
				}
			}
			return nil
		})
		u.Pause = max(u.Pause, pause)
	}()
	<-done
	return found, err
}

// describe fills in what was found, of what is still live.
func (p *Profile) describe(u *Unreachable, found map[uint64]*reach.Goroutine) {
	var unreachable []placed
	held := make(map[*reach.Goroutine][]placed)
	for _, b := range p.blocks() {
		if by, ok := found[b.serial]; by != nil {
			held[by] = append(held[by], b)
		} else if ok {
			unreachable = append(unreachable, b)
		}
	}
	u.Report = p.report(unreachable)
	for by, blocks := range held {
		h := Held{Goroutine: by.ID, Reason: text.Name(by.Reason), Waited: by.Waited, Stack: framesOf(callers.Frames(by.Stack)), Report: p.report(blocks)}
		if by.CreatedAt != 0 {
			h.Started = framesOf(callers.Frames([]uintptr{by.CreatedAt}))
		}
		u.Held = append(u.Held, h)
	}
	slices.SortFunc(u.Held, func(a, b Held) int {
		return cmp.Or(cmp.Compare(b.Report.Bytes, a.Report.Bytes), cmp.Compare(a.Goroutine, b.Goroutine))
	})
}

// String returns a line for what is unreachable and one for each site, as that of a [Report], and then likewise what only waiting goroutines hold, for example
//
//	4 KiB in 1 block is unreachable from Go:
//	  4 KiB in 1 block of 4 KiB: cache.Load (cache.go:9), cache.Warm (cache.go:5); 1h12m old
//	8 KiB in 1 block is held only by goroutine 18, which waits (chan receive, for 3m or longer) in feed.pump (feed.go:31), started by feed.Open (feed.go:12):
//	  8 KiB in 1 block of 8 KiB: feed.Open (feed.go:11), main.main (main.go:20); 1h12m old
func (u Unreachable) String() string {
	var report strings.Builder
	u.Report.writeSites(&report, "unreachable from Go")
	for _, h := range u.Held {
		h.Report.writeSites(&report, h.by())
	}
	if u.Report.Rate > 1 {
		report.WriteString("one block is sampled for so many bytes: what only others point to is among these\n")
	}
	return report.String()
}

// by says which goroutine holds blocks.
func (h Held) by() string {
	waited := ""
	if h.Waited > 0 {
		waited = ", for " + age(h.Waited) + " or longer"
	}
	started := ""
	if len(h.Started) > 0 {
		started = ", started by " + calls(h.Started, callsShown, false)
	}
	return fmt.Sprintf("held only by goroutine %d, which waits (%s%s) in %s%s", h.Goroutine, h.Reason, waited, calls(h.Stack, callsShown, false), started)
}
