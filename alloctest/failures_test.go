package alloctest

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// tb is a testing.TB that only remembers what fails.
type tb struct {
	testing.TB
	errors []string
}

func (*tb) Helper() {}

func (t *tb) Errorf(format string, args ...any) {
	t.errors = append(t.errors, fmt.Sprintf(format, args...))
}

// pair allocates twice, and on the second failure frees the first block, or forgets to.
func pair(mem *alloctrace.Proxy, forget bool) error {
	first, err := mem.Allocate(blockalloc.BlockLayout(64))
	if err != nil {
		return err
	}
	second, err := mem.Allocate(blockalloc.BlockLayout(128))
	if err != nil {
		if forget {
			return err
		}
		return errors.Join(err, mem.Free(first))
	}
	return errors.Join(mem.Free(second), mem.Free(first))
}

func TestCheckAllFailures(t *testing.T) {
	runs := 0
	CheckAllFailures(t, func(mem *alloctrace.Proxy) error {
		runs++
		return pair(mem, false)
	})
	if runs != 5 {
		t.Errorf("the scenario has run %d times, want once as it is and 4 times with failures", runs)
	}
	failing := tb{TB: t}
	CheckAllFailures(&failing, func(mem *alloctrace.Proxy) error { return pair(mem, true) })
	text := strings.Join(failing.errors, "\n")
	if !regexp.MustCompile(`64 B in 1 block of 64 B: alloctest.pair \(failures_test.go:\d+\)`).MatchString(text) ||
		!strings.Contains(text, "with allocation 2 of 2 failing: ") {
		t.Errorf("a block is forgotten if the second allocation fails: %s", text)
	}
	failing.errors = nil
	CheckAllFailures(&failing, func(mem *alloctrace.Proxy) error {
		_ = pair(mem, false)
		return nil
	})
	if text := strings.Join(failing.errors, "\n"); !strings.Contains(text, "returns no error") {
		t.Errorf("the error is hidden: %s", text)
	}
	failing.errors = nil
	CheckAllFailures(&failing, func(mem *alloctrace.Proxy) error {
		b, err := mem.Child("index").Allocate(blockalloc.BlockLayout(64))
		if err == nil {
			err = mem.Free(b)
		}
		return err
	})
	if text := strings.Join(failing.errors, "\n"); !strings.Contains(text, `64 B at `) || !strings.Contains(text, `allocated through child "index" by alloctest.TestCheckAllFailures.`) {
		t.Errorf("a child's block is freed through its parent: %s", text)
	}
}
