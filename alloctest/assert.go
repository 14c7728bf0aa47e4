package alloctest

import (
	"flag"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// AssertLive fails the test unless exactly bytes bytes are live in blocks blocks of s.
func AssertLive(t TestingT, s counter.Source, bytes, blocks int64) {
	t.Helper()
	if got := s.Stats(); got.LiveBytes != bytes || got.LiveBlocks != blocks {
		t.Errorf("alloctest: %d bytes in %d blocks are live, want %d in %d", got.LiveBytes, got.LiveBlocks, bytes, blocks)
	}
}

// A Delta is a change of what is live. It is negative if that has shrunk.
type Delta struct{ Bytes, Blocks int64 }

// AssertDelta calls f, and fails the test unless what is live of s has changed by want. Operations
// of other goroutines meanwhile count too.
func AssertDelta(t TestingT, s counter.Source, want Delta, f func()) {
	t.Helper()
	before := s.Stats()
	f()
	d := s.Stats().Sub(before)
	if got := (Delta{d.LiveBytes, d.LiveBlocks}); got != want {
		t.Errorf("alloctest: what is live has grown by %d bytes in %d blocks, want %d in %d", got.Bytes, got.Blocks, want.Bytes, want.Blocks)
	}
}

// AllocsPerRun returns how many blocks a call of f allocates from s, on average over n calls. It
// calls f once before, to warm up. Reallocations count too, and so do operations of other
// goroutines meanwhile. Other allocators do not count, so that tests may run in parallel. It
// panics if n is less than 1.
func AllocsPerRun(s counter.Source, n int, f func()) float64 {
	if n < 1 {
		panic(fmt.Sprintf("alloctest: AllocsPerRun of %d calls: use 1 or more", n))
	}
	f()
	before := s.Stats()
	for range n {
		f()
	}
	d := s.Stats().Sub(before)
	return float64(d.Allocations+d.Reallocations) / float64(n)
}

// ReportMetrics adds to b's result what s has allocated: offheap-B/op and offheap-allocs/op on
// average, and offheap-peak-B, the most that was live. Call it after the loop, with an s that was
// made for this benchmark.
func ReportMetrics(b *testing.B, s counter.Source) {
	got := s.Stats()
	b.ReportMetric(float64(got.AllocatedBytes)/float64(b.N), "offheap-B/op")
	b.ReportMetric(float64(got.Allocations+got.Reallocations)/float64(b.N), "offheap-allocs/op")
	b.ReportMetric(float64(got.PeakBytes), "offheap-peak-B")
}

// VerifyTestMain runs the tests of m and ends the program with their result. If they have passed,
// but blocks of proxies are live, or of [blockalloc.Default] where that is a Pool, the result is
// a failure.
//
//	func TestMain(m *testing.M) { alloctest.VerifyTestMain(m) }
//
// With -alloctest.debug=guard an access outside a block ends the program, and Go's crash output
// has the stack of the access. If that code runs under [debug.Allocator.Catch] of [Debug], the
// test fails with a report on the block instead.
func VerifyTestMain(m interface{ Run() int }, proxies ...*alloctrace.Proxy) {
	if !flag.Parsed() {
		flag.Parse()
	}
	if _, err := debugMode(); err != nil { // also where no test makes a Proxy that would say so
		fmt.Fprintf(os.Stderr, "alloctest: %v\n", err)
		os.Exit(2)
	}
	os.Exit(verifyMain(m, os.Stderr, blockalloc.Default(), proxies))
}

func verifyMain(m interface{ Run() int }, w io.Writer, all blockalloc.Allocator, proxies []*alloctrace.Proxy) int {
	if code := m.Run(); code != 0 {
		return code
	}
	t := mainT{w: w}
	for _, p := range proxies {
		VerifyNone(&t, p)
	}
	if pool, ok := all.(*blockalloc.Pool); ok {
		collectDropped(func() bool { return pool.Stats().LiveBlocks > 0 })
		if s := pool.Stats(); s.LiveBlocks > 0 {
			t.Errorf("alloctest: blockalloc.Default() has leaked %s in %s\n", counter.FormatBytes(s.LiveBytes), blocks(s.LiveBlocks))
		}
	}
	return t.failed
}

// mainT prints failures after the tests.
type mainT struct {
	w      io.Writer
	failed int
}

func (*mainT) Helper() {}

func (t *mainT) Errorf(format string, args ...any) {
	t.failed = 1
	fmt.Fprintf(t.w, format, args...)
}
