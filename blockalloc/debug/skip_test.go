package debug_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/adapter.v2"
	"github.com/alloctrace/alloctrace/internal/adapter.v2/inner"
)

const adapterPackages = "github.com/alloctrace/alloctrace/internal/adapter.v2/..."

// client stands for a program whose memory an adapter allocates, in two ways.
//
//go:noinline
func client(d blockalloc.Allocator) { adapter.New(d, 100); inner.Allocate(d, 28) }

// TestSkip: reports begin with who called an adapter, and Close puts together what the same has allocated.
func TestSkip(t *testing.T) {
	closure := regexp.MustCompile(`adapter%2\S+\.func1`) // which has two names in Go 1.26 and 1.27
	const whole = `debug: Close: blocks are still live: 2 of them, 128 bytes in all: free them first
debug: Close: blocks are still live: 1 of them, 100 bytes in all, the first of them block ADDR of 100 B aligned to 8
	allocated by
		inner.go:LINE inner.Allocate
		adapter.go:LINE CLOSURE
		adapter.go:LINE adapter%2ev2.call
		adapter.go:LINE adapter%2ev2.(*builder[...]).block
		adapter.go:LINE adapter%2ev2.build[...]
		adapter.go:LINE adapter%2ev2.New
		skip_test.go:LINE debug_test.client
		skip_test.go:LINE debug_test.TestSkip
debug: Close: blocks are still live: 1 of them, 28 bytes in all, the first of them block ADDR of 28 B aligned to 8
	allocated by
		inner.go:LINE inner.Allocate
		skip_test.go:LINE debug_test.client
		skip_test.go:LINE debug_test.TestSkip`
	const skipped = `debug: Close: blocks are still live: 2 of them, 128 bytes in all: free them first
debug: Close: blocks are still live: 2 of them, 128 bytes in all, the first of them block ADDR of 100 B aligned to 8
	allocated by
		skip_test.go:LINE debug_test.client
		skip_test.go:LINE debug_test.TestSkip`
	for want, skip := range map[string][]string{whole: nil, skipped: {adapterPackages}} {
		var reports []string
		d := debug.New(new(blockalloc.Heap), debug.Options{Skip: skip, OnReport: func(r *debug.Report) { reports = append(reports, r.Error()) }})
		client(d)
		err := d.Close()
		if got := closure.ReplaceAllString(stable(err), "CLOSURE"); got != want {
			t.Errorf("without %q:\n%s\nwant\n%s", skip, got, want)
		}
		if all := strings.Join(reports, "\n"); !strings.HasSuffix(err.Error(), all) || all == "" {
			t.Errorf("OnReport has had\n%s", all)
		}
	}
}

// TestSkipKeepsMore: where calls are left out, more are kept, unless the options say how many.
func TestSkipKeepsMore(t *testing.T) {
	for options, want := range map[*debug.Options]int{
		{Skip: []string{adapterPackages}}:            32,
		{Skip: []string{adapterPackages}, Stack: 20}: 20,
		{Skip: []string{adapterPackages}, Stack: -1}: 0,
	} {
		d := debug.New(new(blockalloc.Heap), *options)
		var b blockalloc.Block
		deep(100, func() { b = mustAllocate(t, d, 8, 8) })
		mustFree(t, d, b)
		if r, ok := d.Free(b).(*debug.Report); !ok || len(r.Allocated) != want {
			t.Errorf("%+v: %v, want %d frames", *options, r, want)
		}
		mustClose(t, d)
	}
}

// TestSkipIsNoPath: who gives another thing than import paths hears what to give.
func TestSkipIsNoPath(t *testing.T) {
	const want = `debug: New: Options.Skip has "a@v1": it has a version: use import paths, such as "example.com/adapter", or "example.com/adapter/..." for all packages below as well`
	defer func() {
		if got := recover(); got != want {
			t.Errorf("%v\nwant %s", got, want)
		}
	}()
	debug.New(new(blockalloc.Heap), debug.Options{Skip: []string{"a@v1"}})
}
