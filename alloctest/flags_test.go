package alloctest

import (
	"runtime"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// set sets a flag until the test ends.
func set(t *testing.T, flag *string, value string) {
	t.Helper()
	before := *flag
	t.Cleanup(func() { *flag = before })
	*flag = value
}

// setDebug sets the flag alone.
func setDebug(t *testing.T, value string) {
	t.Helper()
	t.Setenv("ALLOCTEST_DEBUG", "")
	set(t, debugFlag, value)
}

func TestStacksFlag(t *testing.T) {
	set(t, stacksFlag, "off")
	var r recorder
	if p := New(&r, WithStacks(Full)); Profile(p) != nil {
		t.Error("with -alloctest.stacks=off stacks are taken")
	}
	*stacksFlag = "some"
	ended(func() { New(&r) })
	if want := `alloctest: -alloctest.stacks=some: use full, sampled or off`; r.fatal != want {
		t.Errorf("%q, want %q", r.fatal, want)
	}
}

// TestDebugFlag: the flag goes before what the test says.
func TestDebugFlag(t *testing.T) {
	for _, c := range []struct {
		flag string
		opt  Option
		want string
	}{
		{"", WithStacks(Full), "debug.Allocator"},
		{"", WithDebug(debug.Options{Guard: true}), "debug.Allocator with guard pages"},
		{"", WithAllocator(new(blockalloc.Heap)), "none"},
		{"guard", WithStacks(Full), "debug.Allocator with guard pages"},
		{"guard", WithDebug(debug.Options{}), "debug.Allocator with guard pages"},
		{"guard", WithAllocator(new(blockalloc.Heap)), "none"},
		{"off", WithDebug(debug.Options{}), "none"},
	} {
		setDebug(t, c.flag)
		var r recorder
		got := "none"
		if d := Debug(New(&r, c.opt)); d != nil {
			got = d.String()
		}
		if runtime.GOOS == "js" {
			c.want = strings.TrimSuffix(c.want, " with guard pages")
		}
		if got != c.want {
			t.Errorf("-alloctest.debug=%s: %s, want %s", c.flag, got, c.want)
		}
		r.end()
	}
	setDebug(t, "")
	t.Setenv("ALLOCTEST_DEBUG", "paranoid")
	var r recorder
	ended(func() { New(&r) })
	if want := `alloctest: the environment variable ALLOCTEST_DEBUG=paranoid: use guard or off`; r.fatal != want {
		t.Errorf("%q, want %q", r.fatal, want)
	}
}

// TestOptionOrder: the order of options does not matter, and a nil one is left out.
func TestOptionOrder(t *testing.T) {
	setDebug(t, "")
	inner, debugged := WithAllocator(new(blockalloc.Heap)), WithDebug(debug.Options{})
	for _, opts := range [][]Option{{inner, debugged}, {debugged, nil, inner}} {
		var r recorder
		if p := New(&r, opts...); Debug(p) == nil {
			t.Error("there is no debug.Allocator")
		}
		r.end()
	}
}

// TestDefaults: a test has all that is free of assumptions, a benchmark what costs
// little.
func TestDefaults(t *testing.T) {
	set(t, stacksFlag, "")
	setDebug(t, "")
	if p := New(t); Debug(p) == nil || Profile(p).Report().Rate != 1 {
		t.Errorf("of a test: %v, %v", Debug(p), Profile(p).Report().Rate)
	}
	testing.Benchmark(func(b *testing.B) {
		if p := New(b); Debug(p) != nil || Profile(p).Report().Rate == 1 {
			t.Errorf("of a benchmark: %v, %v", Debug(p), Profile(p).Report().Rate)
		}
	})
	if d := Debug(alloctrace.Wrap(new(blockalloc.Heap))); d != nil {
		t.Errorf("of another Proxy: %v", d)
	}
}
