package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/cmd/alloctrace/internal/preload"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// converts returns the events that raw ones become.
func converts(t *testing.T, threads bool, raw ...preload.Event) (events []recording.Event) {
	t.Helper()
	var b bytes.Buffer
	c, err := newConverter(&b, preload.Header{Name: "x", Align: 16, Began: time.Unix(1, 0)}, nil, threads)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range raw {
		e.Number = uint64(i + 1)
		if err := c.event(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.finish(); err != nil {
		t.Fatal(err)
	}
	r, err := recording.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range r.Events() {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// TestConvert: what C does becomes what a Proxy would have said.
func TestConvert(t *testing.T) {
	const (
		allocated, reallocated, reallocating, freeing = alloctrace.Allocated, alloctrace.Reallocated, alloctrace.Reallocating, alloctrace.Freeing
		allocateFailed, reallocateFailed              = alloctrace.AllocateFailed, alloctrace.ReallocateFailed
	)
	at := func(ms int, k alloctrace.Kind, thread uint32, addr, size uint64) preload.Event {
		e := preload.Event{Kind: k, Addr: addr, Size: size, Thread: thread, Align: 16, Time: time.Duration(ms) * time.Millisecond}
		if k <= reallocated {
			e.Usable = size | 8
		}
		return e
	}
	aligned := at(1, allocated, 1, 0x1000, 100)
	aligned.Align = 64
	for name, c := range map[string]struct {
		raw  []preload.Event
		want string
	}{
		"pair":                    {[]preload.Event{at(1, allocated, 1, 16, 100), at(2, freeing, 1, 16, 0)}, "1ms allocated 16 100/108 16, 2ms freeing 16 0/108 16"},
		"small":                   {[]preload.Event{at(1, allocated, 1, 16, 0), at(2, allocated, 1, 48, 15)}, "1ms allocated 16 1/8 8, 2ms allocated 48 15/15 8"},
		"failed":                  {[]preload.Event{at(1, allocateFailed, 1, 0, 1<<62)}, "1ms allocate failed 0 281474976710655/281474976710655 16"},
		"unknown":                 {[]preload.Event{at(1, freeing, 1, 16, 0)}, "1ms freeing 16 0/0 1"},
		"time back":               {[]preload.Event{at(2, allocated, 1, 16, 16), at(1, freeing, 2, 16, 0)}, "2ms allocated 16 16/24 16, 2ms freeing 16 0/24 16"},
		"lost":                    {[]preload.Event{at(1, allocated, 1, 16, 16), {Lost: 3}, at(2, allocated, 1, 16, 16)}, "1ms allocated 16 16/24 16, 3 lost, 2ms allocated 16 16/24 16"},
		"grown":                   {[]preload.Event{at(1, allocated, 1, 16, 5), at(2, reallocating, 1, 16, 0), at(3, reallocated, 1, 16, 100)}, "1ms allocated 16 5/13 8, 2ms reallocating 16 0/13 8 #1, 3ms reallocated 16 100/108 8 #1"},
		"not grown":               {[]preload.Event{at(1, allocated, 1, 16, 5), at(2, reallocating, 1, 16, 0), at(3, reallocateFailed, 1, 16, 1<<50), at(4, freeing, 1, 16, 0)}, "1ms allocated 16 5/13 8, 2ms reallocating 16 0/13 8 #1, 3ms reallocate failed 16 0/13 8 #1, 4ms freeing 16 0/13 8"},
		"aligned":                 {[]preload.Event{aligned, at(2, reallocating, 1, 0x1000, 0), at(3, reallocated, 1, 0x2000, 100)}, "1ms allocated 4096 100/108 64, 2ms reallocating 4096 0/108 64 #1, 3ms reallocated 8192 100/108 64 #1"},
		"less aligned":            {[]preload.Event{aligned, at(2, reallocating, 1, 0x1000, 0), at(3, reallocated, 1, 0x2010, 100)}, "1ms allocated 4096 100/108 64, 2ms freeing 4096 0/108 64, 3ms allocated 8208 100/108 16"},
		"killed":                  {[]preload.Event{at(1, allocated, 1, 16, 16), at(2, reallocating, 1, 16, 0)}, "1ms allocated 16 16/24 16, 2ms reallocating 16 0/24 16 #1"},
		"lost end":                {[]preload.Event{at(1, allocated, 1, 16, 16), at(2, reallocating, 1, 16, 0), {Lost: 1}, at(3, allocated, 1, 16, 32)}, "1ms allocated 16 16/24 16, 2ms lost, 2ms reallocating 16 0/24 16 #1, 3ms allocated 16 32/40 16"},
		"lost begin":              {[]preload.Event{{Lost: 1}, at(3, reallocated, 1, 16, 32)}, "1 lost, 3ms allocated 16 32/40 16"},
		"lost begin of a failure": {[]preload.Event{{Lost: 1}, at(3, reallocateFailed, 1, 16, 1<<50), at(4, freeing, 1, 16, 0)}, "1 lost, 3ms allocate failed 0 281474976710655/281474976710655 16, 4ms freeing 16 0/0 1"},
		"others between": {[]preload.Event{at(1, allocated, 1, 16, 16), at(2, allocated, 2, 64, 16), at(3, reallocating, 1, 16, 0), at(4, reallocating, 2, 64, 0), at(5, freeing, 3, 99, 0), at(6, reallocated, 2, 128, 40), at(7, reallocated, 1, 256, 50)},
			"1ms allocated 16 16/24 16, 2ms allocated 64 16/24 16, 5ms freeing 99 0/0 1, 5ms reallocating 64 0/24 16 #1, 6ms reallocated 128 40/40 16 #1, 6ms reallocating 16 0/24 16 #2, 7ms reallocated 256 50/58 16 #2"},
		"reused meanwhile": {[]preload.Event{at(1, allocated, 1, 16, 16), at(2, reallocating, 1, 16, 0), at(3, allocated, 2, 16, 17), at(4, reallocated, 1, 256, 50)},
			"1ms allocated 16 16/24 16, 2ms reallocating 16 0/24 16 #1, 2ms reallocated 256 50/58 16 #1, 3ms allocated 16 17/25 16"},
	} {
		var got []string
		for _, e := range converts(t, false, c.raw...) {
			if e.Dropped > 0 {
				got = append(got, strings.Replace(fmt.Sprintf("%d lost", e.Dropped), "1 lost", map[bool]string{true: "2ms lost", false: "1 lost"}[name == "lost end"], 1))
				continue
			}
			got = append(got, fmt.Sprintf("%v %v %d %d/%d %d", e.At, e.Kind, e.Addr, e.Requested, e.Size, e.Align))
			if e.Reallocation != 0 {
				got[len(got)-1] += fmt.Sprint(" #", e.Reallocation)
			}
			if e.Proxy != "x" || e.Child != "" {
				t.Errorf("%s: %+v", name, e)
			}
		}
		if got := strings.Join(got, ", "); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, c.want)
		}
	}
	if e := converts(t, true, at(1, allocated, 7, 16, 16))[0]; e.Child != "thread 7" {
		t.Errorf("%+v", e)
	}
}

// TestConvertStuck: events wait for the end of a reallocation, but not without end.
func TestConvertStuck(t *testing.T) {
	c, err := newConverter(io.Discard, preload.Header{Name: "x", Align: 16, Began: time.Unix(1, 0)}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	number := uint64(0)
	add := func(k alloctrace.Kind, thread uint32, addr uint64) {
		number++
		if err := c.event(preload.Event{Number: number, Kind: k, Thread: thread, Addr: addr, Size: 32, Align: 16}); err != nil {
			t.Fatal(err)
		}
		if len(c.queue) > mostWaiting {
			t.Fatalf("%d events wait", len(c.queue))
		}
	}
	for thread := range uint32(3) { // the ends of these are lost
		add(alloctrace.Allocated, thread, uint64(thread+1)<<10)
		add(alloctrace.Reallocating, thread, uint64(thread+1)<<10)
		add(alloctrace.Allocated, 9, uint64(thread+1)<<10)
	}
	for range 2 * mostWaiting {
		add(alloctrace.Allocated, 9, 16)
		add(alloctrace.Freeing, 9, 16)
	}
	add(alloctrace.Reallocated, 1, 48)
	if err := c.finish(); err != nil || c.summary.events != int64(number) || c.summary.blocks != 4 {
		t.Errorf("%v; of %d events: %+v", err, number, c.summary)
	}
}

// recorderFile is one of a recorder: events by one call each, and what was mapped from which event on.
func recorderFile(t *testing.T, pcs []uint64, maps map[uint64]string) *preload.File {
	t.Helper()
	order := binary.LittleEndian
	const header, size = 64 << 10, 4096
	b := append([]byte("ALTRPRE1"), make([]byte, header-8)...)
	for at, n := range map[int]uint32{8: 0x01020304, 12: header, 16: size, 32: 16} {
		order.PutUint32(b[at:], n)
	}
	chunk := func(c []byte) { b = append(append(b, c...), make([]byte, size-len(c))...) }
	for seq, text := range maps {
		text = fmt.Sprintf("@%d\n%s", seq, text)
		chunk(append(append(order.AppendUint32([]byte{2, 0, 0, 0}, uint32(len(text))), make([]byte, 8)...), text...))
	}
	events := append([]byte{1}, make([]byte, 15)...)
	for i, pc := range pcs {
		for _, word := range []uint64{uint64(i + 1), 0, 64 * uint64(i+1), 32, 32} {
			events = order.AppendUint64(events, word)
		}
		events = order.AppendUint64(append(order.AppendUint32(events, 5), byte(alloctrace.Allocated), 4, 1, 0), pc)
	}
	chunk(events)
	f, err := preload.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestConvertMaps: an address is another function where another library was mapped since. Of two stacks that are the same there is one.
func TestConvertMaps(t *testing.T) {
	mapped := func(path string) string { return "5000-6000 r-xp 00000000 08:01 7 " + path + "\n" }
	f := recorderFile(t, []uint64{0x5010, 0x5010, 0x5010, 0x5010}, map[uint64]string{0: mapped("/a"), 2: mapped("/a") + mapped("/c"), 3: mapped("/b")})
	var b bytes.Buffer
	if _, err := convert(t.Context(), &b, f, make(preload.Modules), false); err != nil {
		t.Fatal(err)
	}
	r, err := recording.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	stacks := make(map[*recording.Stack]bool)
	for e, err := range r.Events() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Stack.Frames[0].Function)
		stacks[e.Stack] = true
	}
	if want := []string{"a+0x10", "a+0x10", "b+0x10", "b+0x10"}; !slices.Equal(got, want) || len(stacks) != 2 {
		t.Errorf("%q by %d stacks, want %q by 2", got, len(stacks), want)
	}
}

// TestConvertCancelled: a conversion that is interrupted ends.
func TestConvertCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if sum, err := convert(ctx, io.Discard, recorderFile(t, []uint64{1}, nil), make(preload.Modules), false); !errors.Is(err, enough) || sum.events > 0 {
		t.Errorf("%v; %+v", err, sum)
	}
}

// A mallocModel is an allocator that gives an address to another thread as soon as it is free, and threads that are interrupted
// between each step of theirs.
type mallocModel struct {
	rng     *rand.Rand
	free    []uint64
	shelf   []uint64 // blocks that some thread may release
	raw     []preload.Event
	size    uint64            // of the last block: each has its own
	at      map[uint64]uint64 // the sizes of blocks
	becomes map[uint64]uint64 // by the size of a block, that of what it is reallocated to
}

func (m *mallocModel) take(list *[]uint64) uint64 {
	i := m.rng.IntN(len(*list))
	addr := (*list)[i]
	*list = slices.Delete(*list, i, i+1)
	return addr
}

func (m *mallocModel) tell(k alloctrace.Kind, thread uint32, addr, size uint64) {
	m.raw = append(m.raw, preload.Event{Kind: k, Thread: thread, Addr: addr, Size: size, Usable: size, Align: 16})
}

// steps returns those of an operation of a thread.
func (m *mallocModel) steps(thread uint32) []func() {
	var old, addr, size uint64
	allocate := func() {
		if len(m.free) == 0 {
			return
		}
		addr = m.take(&m.free)
		m.size++
		size = m.size
	}
	switch op := m.rng.IntN(4); {
	case len(m.shelf) == 0 || op == 0:
		return []func(){allocate, func() {
			if addr > 0 {
				m.tell(alloctrace.Allocated, thread, addr, size)
				m.at[addr] = size
				m.shelf = append(m.shelf, addr)
			}
		}}
	case op == 1:
		old = m.take(&m.shelf)
		return []func(){func() { m.tell(alloctrace.Freeing, thread, old, 0) }, func() { m.free = append(m.free, old) }}
	}
	old = m.take(&m.shelf)
	was := m.at[old]
	return []func(){
		func() { m.tell(alloctrace.Reallocating, thread, old, 0) },
		func() {
			if allocate(); addr == 0 {
				m.size++
				addr, size, old = old, m.size, 0 // in place
			}
			m.becomes[was] = size
		},
		func() {
			if old > 0 {
				m.free = append(m.free, old)
			}
		},
		func() {
			m.tell(alloctrace.Reallocated, thread, addr, size)
			m.at[addr] = size
			m.shelf = append(m.shelf, addr)
		},
	}
}

// TestConvertModel: however threads are interrupted, no address is live twice, and the two events of a reallocation are side by side.
func TestConvertModel(t *testing.T) {
	seeds := uint64(1000)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		m := &mallocModel{rng: rand.New(rand.NewPCG(seed, 7)), size: 100, at: make(map[uint64]uint64), becomes: make(map[uint64]uint64)}
		for addr := uint64(1); addr <= 8; addr++ {
			m.free = append(m.free, 64*addr)
		}
		steps := make([][]func(), 5)
		for range 3000 {
			of := m.rng.IntN(len(steps))
			if len(steps[of]) == 0 {
				steps[of] = m.steps(uint32(of))
			}
			steps[of][0]()
			steps[of] = steps[of][1:]
		}
		for _, rest := range steps {
			for _, step := range rest {
				step()
			}
		}
		events := converts(t, false, m.raw...)
		if len(events) != len(m.raw) {
			t.Fatalf("seed %d: %d events become %d", seed, len(m.raw), len(events))
		}
		live := make(map[uintptr]uintptr) // sizes
		for i, e := range events {
			switch e.Kind {
			case alloctrace.Allocated, alloctrace.Reallocated:
				if live[e.Addr] > 0 {
					t.Fatalf("seed %d, event %d: %+v is where a block of %d bytes is live", seed, i, e, live[e.Addr])
				}
				live[e.Addr] = e.Size
				if e.Kind == alloctrace.Reallocated && (events[i-1].Kind != alloctrace.Reallocating || m.becomes[uint64(events[i-1].Size)] != uint64(e.Size)) {
					t.Fatalf("seed %d, event %d: %+v follows %+v", seed, i, e, events[i-1])
				}
			default:
				if live[e.Addr] != e.Size {
					t.Fatalf("seed %d, event %d: %+v, and the block there has %d bytes", seed, i, e, live[e.Addr])
				}
				delete(live, e.Addr)
			}
		}
	}
}
