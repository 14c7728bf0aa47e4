// Package production has one call for all that is to be left on in production:
//
//	mem, err := production.Wrap(blockalloc.Default(), production.Options{Name: "cache", BlackBox: "/var/lib/server/alloc.box"})
//	…
//	defer mem.Close()
//	b, err := mem.Proxy.Allocate(blockalloc.BlockLayout(64 << 10))
//
// It counts, samples who holds memory, who held it at the peak and how long blocks live, keeps the last events, guards one block in 8
// MiB against misuse, a large one as seldom as one of 1 KiB, and keeps all of that in a file that is there after a crash. What each of them costs alone and together is in
// PERFORMANCE.md.
package production

import (
	"errors"
	"fmt"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// Options configure [Wrap].
type Options struct {
	// Name is that of the Proxy.
	Name string

	// BlackBox is the path of a file for [blackbox.Create], which keeps the one that was there before as path.old. Without it
	// nothing outlives the process.
	BlackBox string

	// OnReport is called with each error that a guard finds: see [guard.Options]. If it is nil, it is printed on standard error.
	// What Reports of package tracer returns makes a span of it.
	OnReport func(*debug.Report)

	// Hooks are called after the others.
	Hooks []alloctrace.Hook
}

// Memory is an allocator with all that watches it. Its parts are to be read, and may be used by several goroutines at once.
type Memory struct {
	Proxy   *alloctrace.Proxy    // to allocate from, with the counters
	Guard   *guard.Allocator     // below the Proxy: Catch, and the rate
	Profile *heapprofile.Profile // with its peak and lifetimes: for package exporters/pprof
	Ring    *ring.Ring           // the last events
	Box     *blackbox.Box        // nil without Options.BlackBox

	clock *ring.CoarseClock
}

// maxDrawn keeps the requests few that have a guarded block: one in eight thousand blocks at most.
const maxDrawn = 1 << 10

// events is how many events a Ring keeps that is in no black box.
const events = 8192

// Wrap returns a Proxy around inner with everything on. The error is that of [blackbox.Create]. It panics if inner is nil.
//
// It takes 2 MiB for the guards and the events, and what a [heapprofile.Profile] takes; a black box takes 4 MiB of the disk, which may be cached in
// memory.
func Wrap(inner blockalloc.Allocator, o Options) (*Memory, error) {
	m := &Memory{
		Guard:   guard.New(inner, guard.Options{OnReport: o.OnReport, MaxDrawn: maxDrawn}),
		Profile: heapprofile.New(heapprofile.Options{Peak: true, Lifetimes: true}),
		clock:   ring.NewCoarseClock(time.Millisecond),
	}
	var last alloctrace.Hook
	if o.BlackBox == "" {
		m.Ring = ring.New(events, m.clock)
		last = m.Ring
	} else {
		box, err := blackbox.Create(o.BlackBox, blackbox.Options{Profile: m.Profile, Clock: m.clock})
		if err != nil {
			m.clock.Close()
			return nil, fmt.Errorf("production: Wrap: %w", err)
		}
		m.Box, m.Ring, last = box, box.Ring(), box
	}
	hooks := append([]alloctrace.Hook{m.Profile, last}, o.Hooks...)
	m.Proxy = alloctrace.Wrap(m.Guard, alloctrace.WithName(o.Name), alloctrace.WithHooks(hooks...))
	if m.Box != nil {
		m.Box.Watch(m.Proxy)
	}
	return m, nil
}

// Close closes the Proxy, which says what is live still, and the black box, which then says that the process has ended well. Blocks can still
// be freed; events have the time of Close from then on.
func (m *Memory) Close() error {
	err := m.Proxy.Close()
	if m.Box != nil {
		err = errors.Join(err, m.Box.Close())
	}
	m.clock.Close()
	return err
}
