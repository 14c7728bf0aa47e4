package alloctest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/process"
)

// TestWrongInputs: what cannot be is said with where it stands, its value, and what can.
func TestWrongInputs(t *testing.T) {
	for _, c := range []struct {
		stacks, debug, variable string
		opts                    []Option
		want                    string
	}{
		{"full", "", "", []Option{WithStacks("some")}, ""}, // the flag overrides it
		{"", "", "", []Option{WithStacks("some")}, `alloctest: WithStacks("some"): use full, sampled or off`},
		{"Full", "", "", nil, "alloctest: -alloctest.stacks=Full: use full, sampled or off"},
		{"", "gard", "", nil, "alloctest: -alloctest.debug=gard: use guard or off"},
		{"", "gard", "guard", nil, "alloctest: -alloctest.debug=gard: use guard or off"},
		{"", "", "gard", nil, "alloctest: the environment variable ALLOCTEST_DEBUG=gard: use guard or off"},
		{"", "", "1", nil, "alloctest: the environment variable ALLOCTEST_DEBUG=1: use guard or off"},
		{"", "off", "gard", nil, ""},
	} {
		set(t, stacksFlag, c.stacks)
		set(t, debugFlag, c.debug)
		t.Setenv(debugVariable, c.variable)
		var r recorder
		ended(func() { New(&r, c.opts...) })
		r.end()
		if r.fatal != c.want {
			t.Errorf("with %+v: %q", c, r.fatal)
		}
	}
}

// TestWrongInputOfMain: VerifyTestMain, which every test binary begins with, says so too.
func TestWrongInputOfMain(t *testing.T) {
	if !process.CanStart(t) {
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), debugVariable+"=gard")
	out, err := cmd.CombinedOutput()
	if want := "alloctest: the environment variable ALLOCTEST_DEBUG=gard: use guard or off\n"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v, and %q, want it to fail with %q", err, out, want)
	}
}

// TestLeaksPastTheProxy: what its debug.Allocator knows to be live fails a test, also where the Proxy
// does not count it.
func TestLeaksPastTheProxy(t *testing.T) {
	setDebug(t, "")
	for name, allocate := range map[string]func(p *alloctrace.Proxy) blockalloc.Allocator{
		"a child's counter": func(p *alloctrace.Proxy) blockalloc.Allocator {
			return p.Child("apart", alloctrace.WithCounter(new(counter.Counter)))
		},
		"Unwrap":        func(p *alloctrace.Proxy) blockalloc.Allocator { return p.Unwrap() },
		"another Proxy": func(p *alloctrace.Proxy) blockalloc.Allocator { return alloctrace.Wrap(p.Unwrap()) },
	} {
		for _, leaks := range []int{0, 1} {
			var r recorder
			p := New(&r)
			b, err := allocate(p).Allocate(blockalloc.BlockLayout(64))
			if err != nil {
				t.Fatal(err)
			}
			if leaks == 0 {
				if err := p.Unwrap().Free(b); err != nil {
					t.Fatal(err)
				}
			}
			r.end()
			if len(r.errors) != leaks || leaks > 0 && (!strings.Contains(r.errors[0], "1 of them, 64 bytes in all") || !strings.Contains(r.errors[0], "inputs_test.go:")) {
				t.Errorf("%s, %d leaks: the test has %q", name, leaks, r.errors)
			}
		}
	}
	var r recorder
	p := New(&r)
	leak(t, p, 64) // what the Proxy counts it alone reports
	r.end()
	if len(r.errors) != 1 || !strings.Contains(r.errors[0], "Proxy has leaked 64 B in 1 block") {
		t.Errorf("a leak that is counted: the test has %q", r.errors)
	}
	r = recorder{}
	p = New(&r)
	leak(t, p, 64)
	if _, err := p.Unwrap().Allocate(blockalloc.BlockLayout(32)); err != nil {
		t.Fatal(err)
	}
	r.end()
	if len(r.errors) != 2 || !strings.Contains(r.errors[1], "32 bytes in all, the first of them") {
		t.Errorf("one that is counted and one that is not: the test has %q", r.errors)
	}
}

// TestFindingsBesideAnother: the allocator's own error is reported beside what debug.Allocator finds.
func TestFindingsBesideAnother(t *testing.T) {
	setDebug(t, "")
	var r recorder
	p := New(&r, WithAllocator(new(stubborn)), WithDebug(debug.Options{}))
	b := leak(t, p, 64)
	mem := b.Bytes()
	if err := p.Free(b); err != nil {
		t.Fatal(err)
	}
	mem[0]++
	r.end()
	if text := r.texts(); !strings.Contains(text, "used after it was freed") || !strings.Contains(text, "not today") {
		t.Errorf("the test has %q", r.errors)
	}
}

// quitting is a test whose Errorf ends the goroutine.
type quitting struct{ recorder }

func (q *quitting) Errorf(format string, args ...any) {
	q.recorder.Errorf(format, args...)
	q.Fatalf("that is all")
}

// TestErrorfEnds: New cleans up whatever becomes of the goroutine meanwhile.
func TestErrorfEnds(t *testing.T) {
	var q quitting
	p := New(&q)
	leak(t, p, 64)
	for _, f := range q.cleanups {
		ended(f)
	}
	if _, err := p.Allocate(blockalloc.BlockLayout(64)); err == nil || Profile(p) != nil || len(q.errors) == 0 {
		t.Errorf("the Proxy is open, or remembered, or nothing is reported: %v, %v, %q", err, Profile(p), q.errors)
	}
}
