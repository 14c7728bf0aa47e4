package blocktest_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// recorder is a testing.TB that keeps what is reported to it.
type recorder struct {
	testing.TB
	text strings.Builder
}

func (r *recorder) Errorf(format string, args ...any) { fmt.Fprintf(&r.text, format+"\n", args...) }
func (r *recorder) Fatalf(format string, args ...any) { r.Errorf(format, args...); runtime.Goexit() }
func (r *recorder) Fatal(args ...any)                 { r.Fatalf("%s", fmt.Sprint(args...)) }

// reported returns what CheckAllocationFailures reports on a scenario.
func reported(t *testing.T, scenario func(blockalloc.Allocator) error) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		blocktest.CheckAllocationFailures(r, scenario)
	}()
	<-done
	return r.text.String()
}

// pairs is a scenario of four allocations and a reallocation, which makes one
// mistake or none.
func pairs(a blockalloc.Allocator, mistake string) (err error) {
	for range 2 {
		first, err := a.Allocate(blockalloc.BlockLayout(64))
		if err != nil {
			if mistake == "hides the error" {
				return errors.New("no pair")
			}
			return err
		}
		second, err := a.Allocate(blockalloc.Layout{Size: 100, Align: 8})
		if err != nil {
			switch mistake {
			case "leaks":
				return err
			case "panics":
				panic(err)
			case "frees twice":
				_ = a.Free(first)
			case "writes past the end":
				*(*byte)(unsafe.Add(first.Pointer(), 64)) = 1
			case "swallows the error":
				return a.Free(first)
			}
			return errors.Join(err, a.Free(first))
		}
		grown, err := a.Reallocate(second, 200)
		if err != nil && mistake == "loses the block" {
			return errors.Join(err, a.Free(first))
		}
		if err := errors.Join(err, a.Free(grown), a.Free(first)); err != nil {
			return err
		}
	}
	return nil
}

func TestCheckAllocationFailures(t *testing.T) {
	if text := reported(t, func(a blockalloc.Allocator) error { return pairs(a, "") }); text != "" {
		t.Errorf("a scenario without a mistake is reported:\n%s", text)
	}
	for mistake, want := range map[string]string{
		"hides the error":     "with allocation 1 of 6 failing: the scenario's error does not wrap the allocator's: no pair",
		"swallows the error":  "with allocation 2 of 6 failing, and all after it: the scenario returns no error",
		"leaks":               "with allocation 2 of 6 failing: 1 blocks with 64 bytes in all are still live at the parent",
		"loses the block":     "with allocation 3 of 6 failing: 1 blocks with 100 bytes in all are still live at the parent",
		"panics":              "with allocation 5 of 6 failing: the scenario's error does not wrap the allocator's: panic: call 5 of the parent",
		"frees twice":         "with allocation 2 of 6 failing: the parent has no such block",
		"writes past the end": "with allocation 2 of 6 failing: the parent's memory after block",
	} {
		if text := reported(t, func(a blockalloc.Allocator) error { return pairs(a, mistake) }); !strings.Contains(text, want) {
			t.Errorf("of a scenario that %s this is reported:\n%swant %q", mistake, text, want)
		}
	}
}

// TestCheckAllocationFailuresRefuses scenarios that cannot be checked.
func TestCheckAllocationFailuresRefuses(t *testing.T) {
	calls := 0
	for want, scenario := range map[string]func(blockalloc.Allocator) error{
		"allocates nothing": func(blockalloc.Allocator) error { return nil },
		"fails without any failure injected: bad day": func(blockalloc.Allocator) error {
			return errors.New("bad day")
		},
		"after the scenario, without any failure injected: 1 blocks with 8 bytes": func(a blockalloc.Allocator) error {
			_, err := a.Allocate(blockalloc.BlockLayout(8))
			return err
		},
		"fewer allocations": func(a blockalloc.Allocator) error {
			if calls++; calls > 1 {
				return nil
			}
			b, err := a.Allocate(blockalloc.BlockLayout(8))
			return errors.Join(err, a.Free(b))
		},
	} {
		if text := reported(t, scenario); !strings.Contains(text, want) {
			t.Errorf("this is reported:\n%swant %q", text, want)
		}
	}
}
