package alloctest

import (
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/process"
)

// lose allocates a block and forgets it.
//
//go:noinline
func lose(mem *alloctrace.Proxy) {
	if _, err := mem.Allocate(blockalloc.BlockLayout(4096)); err != nil {
		panic(err)
	}
}

// TestVerifyReachable: a block that is held is no failure, and one that was lost is named by who allocated it.
func TestVerifyReachable(t *testing.T) {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("Go writes no heap dump on wasm: the platform has none")
	}
	var r recorder
	mem := New(&r, WithAllocator(new(blockalloc.System)))
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		t.Fatal(err)
	}
	VerifyReachable(&r, mem)
	if len(r.errors) != 0 {
		t.Errorf("%q", r.errors)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 8 { // an address that is left anywhere can hide one
			lose(mem)
		}
	}()
	<-done
	VerifyReachable(&r, mem)
	runtime.KeepAlive(b)
	want := regexp.MustCompile(`^alloctest: Proxy has leaked blocks that are live\n\d+ KiB in \d blocks are unreachable from Go:\n  \d+ KiB in \d blocks of \d+ KiB: alloctest.lose \(reachable_test.go:\d+\), alloctest.TestVerifyReachable`)
	if len(r.errors) != 1 || !want.MatchString(r.errors[0]) {
		t.Errorf("%q", r.errors)
	}
	r.end()
}

// TestVerifyReachableUnknown: a Proxy of which not every block is known is refused.
func TestVerifyReachableUnknown(t *testing.T) {
	for _, stacks := range []Stacks{Off, Sampled} {
		var r recorder
		VerifyReachable(&r, New(t, WithStacks(stacks)))
		if len(r.errors) != 1 || !strings.Contains(r.errors[0], "it does not know every block") {
			t.Errorf("%q", r.errors)
		}
	}
}

// TestLeakedGoroutine: a goroutine that waits for ever with a block on its stack is named, where Go can tell. A process of its own runs it, for Go can
// dump no heap after that.
func TestLeakedGoroutine(t *testing.T) {
	const variable = "ALLOCTEST_LEAKED_GOROUTINE"
	if os.Getenv(variable) == "" {
		if !process.CanStart(t) {
			return
		}
		out, err := process.Again(t, variable+"=1").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestLeakedGoroutine") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	var r recorder
	mem := New(&r, WithAllocator(new(blockalloc.System)))
	ready := make(chan struct{})
	go stuck(mem, ready)
	<-ready
	for !strings.Contains(stacks(), "alloctest.stuck") { // until it waits
		runtime.Gosched()
	}
	VerifyReachable(&r, mem)
	if pprof.Lookup("goroutineleak") == nil {
		if len(r.errors) != 0 {
			t.Errorf("%q", r.errors)
		}
		return
	}
	want := regexp.MustCompile(`(?s)is held only by goroutine (\d+), which waits \(chan receive.*\) in alloctest.stuck \(reachable_test.go:\d+\), started by alloctest.TestLeakedGoroutine.*goroutine (\d+) has leaked`)
	if m := want.FindStringSubmatch(strings.Join(r.errors, "\n")); len(r.errors) != 1 || m == nil || m[1] != m[2] {
		t.Fatalf("%q", r.errors)
	}
	VerifyReachable(&r, mem)
	if len(r.errors) != 2 || !strings.Contains(r.errors[1], "Go's runtime would end the program at a dump") {
		t.Errorf("%q", r.errors)
	}
}

// stacks returns the stacks of the goroutines that wait to receive.
func stacks() string {
	all := make([]byte, 1<<20)
	var waiting strings.Builder
	for _, g := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
		if strings.Contains(g, "[chan receive") {
			waiting.WriteString(g)
		}
	}
	return waiting.String()
}

//go:noinline
func stuck(mem *alloctrace.Proxy, ready chan<- struct{}) {
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		panic(err)
	}
	close(ready)
	<-make(chan struct{}) // nobody has the other end
	b.Bytes()[0]++
}
