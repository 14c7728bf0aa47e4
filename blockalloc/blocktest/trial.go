package blocktest

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
)

// trial is a testing.TB that keeps failures to itself, so that a failing script can be
// tried again with less.
type trial struct {
	testing.TB
	mu       sync.Mutex
	errs     []error
	cleanups []func()
}

// try runs fn in a goroutine of its own and returns how it fails: by its error, its
// testing.TB, a panic, or an invalid memory access.
func try(t testing.TB, fn func(testing.TB) error) error {
	tr := &trial{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer tr.clean()
		defer tr.recover()
		debug.SetPanicOnFault(true)
		if err := fn(tr); err != nil {
			tr.add(err)
		}
	}()
	<-done
	return errors.Join(tr.errs...)
}

func (t *trial) recover() {
	if r := recover(); r != nil {
		t.add(fmt.Errorf("panic: %v\n%s", r, debug.Stack()))
	}
}

// clean runs the cleanups, last first, also if one of them ends the goroutine.
func (t *trial) clean() {
	t.mu.Lock()
	last := len(t.cleanups) - 1
	if last < 0 {
		t.mu.Unlock()
		return
	}
	fn := t.cleanups[last]
	t.cleanups = t.cleanups[:last]
	t.mu.Unlock()
	defer t.clean()
	defer t.recover()
	fn()
}

func (t *trial) add(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errs = append(t.errs, err)
}

func (t *trial) Cleanup(fn func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, fn)
}

func (t *trial) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.errs) > 0
}

func (t *trial) Fail()                             { t.add(errors.New("Fail")) }
func (t *trial) FailNow()                          { t.Fail(); runtime.Goexit() }
func (t *trial) Error(args ...any)                 { t.add(errors.New(fmt.Sprint(args...))) }
func (t *trial) Errorf(format string, args ...any) { t.add(fmt.Errorf(format, args...)) }
func (t *trial) Fatal(args ...any)                 { t.Error(args...); runtime.Goexit() }
func (t *trial) Fatalf(format string, args ...any) { t.Errorf(format, args...); runtime.Goexit() }
func (t *trial) Skip(args ...any)                  { t.Fatal(args...) }
func (t *trial) Skipf(format string, args ...any)  { t.Fatalf(format, args...) }
func (t *trial) SkipNow()                          { t.Fatal("SkipNow") }
