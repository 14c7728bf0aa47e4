package blocktest

import (
	"errors"
	"fmt"
	"runtime/debug"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// CheckAllocationFailures runs scenario with an allocator that counts its n allocations
// and reallocations. Then it runs it again for each of them: with that one failing
// alone, and with all from that one on failing. Each time, the scenario must return an
// error that wraps [ErrInjected], and must have freed all that it allocated. A leak or
// a second free on an error path, or a lost error, is reported to t with the number of
// the allocation.
//
// The scenario must do the same each time; n is checked to be no less. It runs 2n+1
// times, so keep n below a few hundred. The allocator's memory is not zeroed and is
// guarded on both sides. Several goroutines can use it at once, and it is an Owner.
//
//	blocktest.CheckAllocationFailures(t, func(a blockalloc.Allocator) error {
//		table, err := NewTable(a)
//		if err != nil {
//			return err
//		}
//		defer table.Free()
//		return table.Insert("key", "value")
//	})
func CheckAllocationFailures(t testing.TB, scenario func(a blockalloc.Allocator) error) {
	t.Helper()
	p := newStrictParent()
	if err := attempt(p, scenario); err != nil {
		t.Fatalf("the scenario fails without any failure injected: %v", err)
	}
	if err := p.empty(); err != nil {
		t.Fatalf("after the scenario, without any failure injected: %v", err)
	}
	if p.calls == 0 {
		t.Fatal("the scenario allocates nothing: there is nothing to fail")
	}
	for i := range p.calls {
		for _, onwards := range []bool{false, true} {
			if err := checkAllocationFailure(i+1, onwards, scenario); err != nil {
				t.Errorf("with allocation %d of %d failing%s: %v", i+1, p.calls, map[bool]string{true: ", and all after it"}[onwards], err)
			}
		}
	}
}

func newStrictParent() *parent {
	p := newParent(false)
	p.counted = callAllocate | callReallocate
	p.strict = true
	return p
}

func checkAllocationFailure(i int, onwards bool, scenario func(a blockalloc.Allocator) error) error {
	p := newStrictParent()
	p.fail, p.onwards = i, onwards
	err := attempt(p, scenario)
	switch {
	case p.failures() == 0:
		err = errors.New("this time the scenario makes fewer allocations: let it do the same each time")
	case err == nil:
		err = errors.New("the scenario returns no error: let it return the allocator's")
	case !errors.Is(err, ErrInjected):
		err = fmt.Errorf("the scenario's error does not wrap the allocator's: %w", err)
	default:
		err = nil
	}
	return errors.Join(err, p.empty())
}

// attempt turns a panic of the scenario into an error.
func attempt(a blockalloc.Allocator, scenario func(a blockalloc.Allocator) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return scenario(a)
}
