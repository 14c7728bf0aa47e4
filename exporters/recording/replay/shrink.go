package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// Shrink returns the smallest recording that it finds for which fails returns the same failure as for all events. Most often
// fails makes a [New] Program of the events, and runs it on a new allocator.
//
// It leaves out what comes after the event of a [*Failure], and blocks that are not live then. If the failure is that memory was
// refused, it asks for what is live in fewer blocks, none larger than the largest of all. Then it leaves out blocks, each with
// all its events, then single releases and reallocations, and then it makes blocks smaller. Blocks are left out by delta
// debugging (ddmin, Zeller and Hildebrandt 2002), until none can be left out alone. Where most blocks are needed, parts of halves are
// not tried, but single blocks. Two Failures are the same if they have the same reason and
// [blockalloc.ErrorType] and, of calls that were refused, panicked or are stuck, the same call. Two other errors are the same if they
// have the same type.
//
// It calls fails some hundred times, with fewer and fewer events. Of n blocks that are all needed, each takes a call that shows that it
// is, and if it cannot be as small as one byte, another. The error says that the events do not fail, or is that of ctx: then the events are the smallest by then.
func Shrink(ctx context.Context, events []recording.Event, fails func(events []recording.Event) error) ([]recording.Event, error) {
	s := &shrinker{ctx: ctx, events: slices.Clone(events), fails: fails}
	if s.want = fails(s.events); s.want == nil {
		return nil, errors.New("replay: Shrink: all events do not fail: give those of a recording whose replay does")
	}
	var f *Failure
	if errors.As(s.want, &f) && !f.AtEnd {
		if f.Event.Number < int64(len(s.events)) {
			s.try(slices.Clone(s.events[:f.Event.Number]))
		}
		s.leaveOutReleased()
		if f.Reason == Refused && len(s.events) > 0 {
			s.askInFew()
		}
	}
	s.leaveOutBlocks(math.MaxInt)
	before := len(s.events)
	if s.leaveOutSteps(); len(s.events) < before {
		s.leaveOutBlocks(1)
	}
	s.makeSmaller()
	if err := context.Cause(ctx); err != nil {
		return s.events, fmt.Errorf("replay: Shrink: %w", err)
	}
	return s.events, nil
}

// A shrinker has the smallest events so far.
type shrinker struct {
	ctx    context.Context
	events []recording.Event
	fails  func([]recording.Event) error
	want   error
}

// try takes fewer or smaller events if they fail in the same way. It reports whether they do.
func (s *shrinker) try(events []recording.Event) bool {
	if s.ctx.Err() != nil || events == nil || !same(s.fails(slices.Clone(events)), s.want) {
		return false
	}
	s.events = events
	return true
}

// same reports whether two errors are the same failure.
func same(a, b error) bool {
	var x, y *Failure
	if errors.As(a, &x) != errors.As(b, &y) || a == nil {
		return false
	}
	if x != nil && (x.Reason != y.Reason || x.Op != y.Op && (x.Reason == Refused || x.Reason == Panicked || x.Reason == Stuck)) {
		return false
	}
	return blockalloc.ErrorType(a) == blockalloc.ErrorType(b)
}

// blocksOf returns of each event the block that it is of. An event of none is a block of its own.
func blocksOf(events []recording.Event) (of []int32, blocks int) {
	l := newLoader(len(events))
	l.keeps = true
	for _, e := range events {
		l.add(e)
	}
	for i, b := range l.blockOf {
		if b < 0 {
			l.blockOf[i] = l.blocks
			l.blocks++
		}
	}
	return l.blockOf, int(l.blocks)
}

// leaveOutReleased leaves out all blocks that are not live at the end, but for that of the last event.
func (s *shrinker) leaveOutReleased() {
	of, blocks := blocksOf(s.events)
	live := make([]bool, blocks)
	for i, e := range s.events {
		live[of[i]] = e.Dropped == 0 && e.Kind <= alloctrace.Reallocated || i == len(s.events)-1
	}
	var released []int32
	for b, is := range live {
		if !is {
			released = append(released, int32(b))
		}
	}
	if len(released) > 0 {
		some, _ := without(s.events, of, released)
		s.try(some)
	}
}

// askInFew has as many bytes asked for, beside those of the last event, in as few blocks as can be of the largest size there was.
func (s *shrinker) askInFew() {
	type liveBlock struct {
		asked uintptr
		at    int // the event that acquired it
	}
	of, blocks := blocksOf(s.events)
	live := make([]liveBlock, blocks)
	end := len(s.events) - 1
	var largest, total uintptr
	for i, e := range s.events[:end] {
		live[of[i]] = liveBlock{}
		if e.Dropped == 0 && e.Kind <= alloctrace.Reallocated {
			live[of[i]] = liveBlock{asked(e), i}
			largest = max(largest, asked(e))
		}
	}
	live[of[end]] = liveBlock{}
	for _, b := range live {
		total += b.asked
	}
	slices.SortFunc(live, func(a, b liveBlock) int { return cmp.Or(cmp.Compare(b.asked, a.asked), cmp.Compare(a.at, b.at)) })
	some := slices.Clone(s.events)
	var others []int32
	for _, b := range live {
		if b.asked == 0 {
			break
		}
		size := min(total, largest)
		total -= size
		if some[b.at].Size, some[b.at].Requested = size, size; size == 0 {
			others = append(others, of[b.at])
		}
	}
	slices.Sort(others)
	some, _ = without(some, of, others)
	s.try(some)
}

// asked returns the bytes that an acquisition asked for.
func asked(e recording.Event) uintptr {
	if e.Requested > 0 {
		return e.Requested
	}
	return e.Size
}

// enough is how many parts are tried in vain before single blocks are: then most blocks are needed, and parts would be tried twice as
// often as there are blocks.
const enough = 16

// leaveOutBlocks leaves out blocks, with all their events: so many at once, or half of them, then fewer and fewer, as long as that
// leaves out any. Then it goes round the blocks until none can be left out alone. Of a block that can, more after it are tried at once.
func (s *shrinker) leaveOutBlocks(most int) {
	of, blocks := blocksOf(s.events)
	left := make([]int32, blocks) // the blocks, in order
	for i := range left {
		left[i] = int32(i)
	}
	leaveOut := func(from, to int) bool {
		some, ofSome := without(s.events, of, left[from:to])
		if !s.try(some) {
			return false
		}
		of, left = ofSome, slices.Delete(left, from, to)
		return true
	}
	for size := min(most, (blocks+1)/2); size > 1 && s.ctx.Err() == nil; size /= 2 {
		parts, before := 0, len(left)
		for from := 0; from < len(left); parts++ {
			if to := min(from+size, len(left)); !leaveOut(from, to) {
				from = to
			}
		}
		if parts >= enough && len(left) == before {
			break
		}
	}
	needed, size := 0, 1 // so many before from cannot be left out
	for from := 0; needed < len(left) && s.ctx.Err() == nil; {
		if from == len(left) {
			from = 0
		}
		switch to := min(from+size, len(left)); {
		case leaveOut(from, to):
			needed, size = 0, 2*size
		case to > from+1:
			size = (to - from) / 2
		default:
			needed, size, from = needed+1, 1, to
		}
	}
}

// without returns the events that are of none of the blocks, which are in order, and their blocks.
func without(events []recording.Event, of []int32, blocks []int32) (some []recording.Event, ofSome []int32) {
	some, ofSome = make([]recording.Event, 0, len(events)), make([]int32, 0, len(events))
	for i, e := range events {
		if _, ok := slices.BinarySearch(blocks, of[i]); !ok {
			some, ofSome = append(some, e), append(ofSome, of[i])
		}
	}
	return some, ofSome
}

// leaveOutSteps leaves out events of blocks that are left: last releases, so that blocks are live to the end, and reallocations.
func (s *shrinker) leaveOutSteps() {
	of, blocks := blocksOf(s.events)
	steps := eventsOf(of, blocks)
	for b := range int32(blocks) {
		for n := len(steps[b]); n > 0 && s.ctx.Err() == nil; {
			n--
			some, out := s.withoutStep(of, steps[b][n])
			if !s.try(some) {
				continue
			}
			for j := len(out) - 1; j >= 0; j-- {
				of = slices.Delete(of, out[j], out[j]+1)
			}
			steps = eventsOf(of, blocks)
			n = len(steps[b])
		}
	}
}

// eventsOf returns the events of each block.
func eventsOf(of []int32, blocks int) [][]int {
	events := make([][]int, blocks)
	for i, b := range of {
		events[b] = append(events[b], i)
	}
	return events
}

// withoutStep returns the events without a step of the block of event i, and which are left out. If event i is the block's last, it
// is left out itself. If it begins a reallocation, the block is from the event before on what it is after the reallocation.
func (s *shrinker) withoutStep(of []int32, i int) (some []recording.Event, out []int) {
	before := func(i int) int { return lastOf(of[:max(0, i)], of[i]) }
	last, next := lastOf(of, of[i]), i+1+slices.Index(of[i+1:], of[i])
	some = slices.Clone(s.events)
	was := before(i)
	switch k := s.events[i].Kind; {
	case was < 0:
		return nil, nil
	case i == last && k == alloctrace.Reallocated:
		out = []int{was, i}
	case i == last:
		out = []int{i}
	case k != alloctrace.Reallocating || next <= i:
		return nil, nil
	case s.events[was].Kind == alloctrace.Allocated:
		out = []int{was, i}
		some[next].Kind, some[next].Reallocation = alloctrace.Allocated, 0
	default: // one reallocation comes after another: they become one
		begun := before(was)
		if begun < 0 {
			return nil, nil
		}
		out = []int{begun, was}
		some[i].Addr, some[i].Size = s.events[begun].Addr, s.events[begun].Size
	}
	for j := len(out) - 1; j >= 0; j-- {
		some = slices.Delete(some, out[j], out[j]+1)
	}
	return some, out
}

// lastOf returns the last event of a block, -1 if it has none.
func lastOf(of []int32, b int32) int {
	for i := len(of) - 1; i >= 0; i-- {
		if of[i] == b {
			return i
		}
	}
	return -1
}

// makeSmaller looks for the smallest size of each acquisition.
func (s *shrinker) makeSmaller() {
	of, blocks := blocksOf(s.events)
	var all []acquisition
	for _, steps := range eventsOf(of, blocks) {
		for n, i := range steps {
			if e := s.events[i]; e.Dropped > 0 || e.Kind > alloctrace.Reallocated {
				continue
			}
			a := acquisition{i, -1}
			if n+1 < len(steps) {
				a.until = steps[n+1]
			}
			all = append(all, a)
		}
	}
	s.makeSome(all)
}

// An acquisition is the event that acquires a block, and the next one of that block, which has its size; -1 if there is none.
type acquisition struct{ at, until int }

// atMost makes the blocks of acquisitions as small as size, those that are larger, if all events fail then.
func (s *shrinker) atMost(some []acquisition, size uintptr) bool {
	events := slices.Clone(s.events)
	changed := false
	for _, a := range some {
		e := &events[a.at]
		size := min(size, asked(*e))
		changed = changed || e.Size != size || e.Requested != size
		e.Size, e.Requested = size, size
		if a.until >= 0 {
			events[a.until].Size = size
		}
	}
	return !changed || s.try(events)
}

// makeSome makes blocks as small as one byte if it can: all at once, or half of them, or fewer, in the end one; of those it cannot it
// finds the size by bisection. That is often the size of others too.
func (s *shrinker) makeSome(all []acquisition) {
	for from, size, found := 0, len(all), uintptr(0); from < len(all) && s.ctx.Err() == nil; {
		to := min(from+size, len(all))
		switch some := all[from:to]; {
		case len(some) == 1 && found > 1 && asked(s.events[some[0].at]) == found && !s.atMost(some, found-1):
			from, size = to, 1
		case s.atMost(some, 1):
			from, size = to, 2*size
		case len(some) > 1:
			size = len(some) / 2
		default:
			found = s.smallest(some)
			s.atMost(all[to:], found)
			from, size = to, 1
		}
	}
}

// smallest makes a block as small as it can be by bisection, and returns its size. One byte is too few.
func (s *shrinker) smallest(some []acquisition) uintptr {
	most := asked(s.events[some[0].at])                              // fails
	for least := uintptr(1); most > least+1 && s.ctx.Err() == nil; { // least does not
		if size := least + (most-least)/2; s.atMost(some, size) {
			most = size
		} else {
			least = size
		}
	}
	return most
}
