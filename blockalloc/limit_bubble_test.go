package blockalloc_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// full returns a Limit of 100 bytes around a Heap, and a block that takes them all.
func full(t testing.TB) (*blockalloc.Limit, blockalloc.Block) {
	l := blockalloc.NewLimit(new(blockalloc.Heap), 100)
	return l, mustAllocate(t, l, 100, 1)
}

// outside returns a function that has one goroutine outside of any bubble call f, and
// returns when it has.
func outside(t testing.TB) (do func(f func())) {
	calls, done := make(chan func()), make(chan struct{})
	go func() {
		for f := range calls {
			f()
			done <- struct{}{}
		}
	}()
	t.Cleanup(func() { close(calls) })
	return func(f func()) {
		calls <- f
		<-done
	}
}

// awaitWaiting returns when n requests wait for l.
func awaitWaiting(l *blockalloc.Limit, n int) {
	for l.Waiting() < n {
		runtime.Gosched()
	}
}

// waitIn allocates 10 bytes and gives them back, and returns how that fails.
func waitIn(ctx context.Context, l *blockalloc.Limit) error {
	b, err := l.AllocateContext(ctx, ofSize(10))
	if err != nil {
		return err
	}
	return l.Free(b)
}

// TestLimitOutsideBubble: a Limit that was made outside serves requests in a bubble,
// whoever frees, and requests outside if a bubble frees.
func TestLimitOutsideBubble(t *testing.T) {
	beside := outside(t)
	l, held := full(t)
	refill := func() { held = mustAllocate(t, l, 100, 1) }
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 2)
		for range 2 {
			go func() { errs <- waitIn(t.Context(), l) }()
		}
		awaitWaiting(l, 2)
		beside(func() { mustFree(t, l, held) })
		if err := errors.Join(<-errs, <-errs); err != nil {
			t.Errorf("freed outside: %v", err)
		}
	})
	refill()
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 1)
		go func() { errs <- waitIn(t.Context(), l) }()
		awaitWaiting(l, 1)
		mustFree(t, l, held)
		if err := <-errs; err != nil {
			t.Errorf("freed in the bubble: %v", err)
		}
	})
	refill()
	errs := make(chan error, 2)
	var waiting sync.WaitGroup
	waiting.Go(func() { errs <- waitIn(context.Background(), l) })
	awaitWaiting(l, 1)
	synctest.Test(t, func(t *testing.T) { mustFree(t, l, held) })
	if err := <-errs; err != nil {
		t.Errorf("waited outside: %v", err)
	}
	refill()
	waiting.Go(func() {
		synctest.Test(t, func(t *testing.T) { errs <- waitIn(t.Context(), l) })
	})
	awaitWaiting(l, 1)
	synctest.Test(t, func(t *testing.T) { mustFree(t, l, held) })
	if err := <-errs; err != nil {
		t.Errorf("freed in another bubble: %v", err)
	}
	waiting.Wait()
	refill()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		errs := make(chan error, 1)
		go func() { errs <- waitIn(ctx, l) }()
		awaitWaiting(l, 1)
		cancel(errTired)
		if err := <-errs; !errors.Is(err, errTired) || !errors.Is(err, blockalloc.ErrLimit) {
			t.Errorf("who gives up: %v", err)
		}
	})
	mustFree(t, l, held)
	if l.Used() != 0 || l.Waiting() != 0 {
		t.Errorf("%d bytes used, %d wait", l.Used(), l.Waiting())
	}
}

// TestLimitBubbleDeadline: a deadline by a bubble's clock also works if the Limit was
// made outside. At the deadline, the request finds what was freed outside.
func TestLimitBubbleDeadline(t *testing.T) {
	beside := outside(t)
	l, held := full(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := waitIn(ctx, l); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody frees: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		errs := make(chan error, 2)
		for range 2 {
			go func() { errs <- waitIn(ctx, l) }()
		}
		awaitWaiting(l, 2)
		var err error
		beside(func() {
			l.SetMax(200)
			err = waitIn(context.Background(), l) // does not wait behind those who are served and do not know yet
		})
		if err = errors.Join(err, <-errs, <-errs); err != nil {
			t.Errorf("raised outside: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		errs := make(chan error, 1)
		go func() {
			_, err := l.AllocateContext(ctx, ofSize(150))
			errs <- err
		}()
		awaitWaiting(l, 1)
		beside(func() { l.SetMax(100) })
		if err := <-errs; !errors.Is(err, blockalloc.ErrLimit) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("lowered outside: %v", err)
		}
	})
	mustFree(t, l, held)
	if l.Used() != 0 || l.Waiting() != 0 {
		t.Errorf("%d bytes used, %d wait", l.Used(), l.Waiting())
	}
}

// TestLimitInBubble: a Limit that was made in a bubble serves others too. A free
// outside, for which a request of the bubble waits, panics with the remedy, and the
// request is served from the bubble.
func TestLimitInBubble(t *testing.T) {
	beside := outside(t)
	synctest.Test(t, func(t *testing.T) {
		l, held := full(t)
		errs := make(chan error, 1)
		go func() { errs <- waitIn(t.Context(), l) }()
		synctest.Wait() // until it sleeps: Waiting is 1 while it may still find by itself what is freed
		var text string
		beside(func() {
			defer func() { text = fmt.Sprint(recover()) }()
			mustFree(t, l, held)
		})
		if want := "make the Limit outside of the bubble"; !strings.Contains(text, want) {
			t.Errorf("panic %q, want one with %q", text, want)
		}
		mustFree(t, l, mustAllocate(t, l, 1, 1)) // from the bubble
		if err := <-errs; err != nil {
			t.Error(err)
		}
		if l.Used() != 0 || l.Waiting() != 0 {
			t.Errorf("%d bytes used, %d wait", l.Used(), l.Waiting())
		}
	})
	var l *blockalloc.Limit
	var held blockalloc.Block
	synctest.Test(t, func(t *testing.T) { l, held = full(t) })
	errs := make(chan error, 1)
	go func() { errs <- waitIn(context.Background(), l) }()
	awaitWaiting(l, 1)
	synctest.Test(t, func(t *testing.T) { mustFree(t, l, held) })
	if err := <-errs; err != nil {
		t.Errorf("waited outside: %v", err)
	}
}

// oddContext panics when it is asked whether it is done.
type oddContext struct{ context.Context }

func (oddContext) Done() <-chan struct{} { panic(errTired) }

// TestLimitOddContext: a context that panics leaves nobody in the queue.
func TestLimitOddContext(t *testing.T) {
	l, held := full(t)
	wantPanic(t, errTired.Error(), func() { _ = waitIn(oddContext{t.Context()}, l) })
	if l.Waiting() != 0 {
		t.Errorf("%d wait", l.Waiting())
	}
	mustFree(t, l, held)
	if err := waitIn(t.Context(), l); err != nil || l.Used() != 0 {
		t.Errorf("%v, %d bytes used", err, l.Used())
	}
}
