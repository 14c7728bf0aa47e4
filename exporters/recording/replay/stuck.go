package replay

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

// patience is how long a call of the allocator may take when the replay is to end.
var patience = 2 * time.Second

// A call is what a worker has the allocator do: the operation, counted from 1, or 0 between calls, or hasEnded, or abandoned. The worker stores the
// first three, run the last. Each change is one of the atomic word: the worker that finds it abandoned touches nothing any more, and run, which has
// done that, sees what the worker has written before its call, and nothing later.
type call struct {
	atomic.Int64
	_ [56]byte // words of two workers in one cache line would slow both down
}

const (
	hasEnded  = -1
	abandoned = -2
)

// entering is called before a call of the allocator.
func (w *worker) entering() { w.call.Store(int64(w.next + 1)) }

// returned is called after it. It does not return if run has not waited for that.
func (w *worker) returned() {
	if !w.call.CompareAndSwap(int64(w.next+1), 0) && w.call.Load() == abandoned {
		w.abandoned = true
		runtime.Goexit()
	}
}

// ended is called when the worker has done all.
func (w *worker) ended() {
	if !w.abandoned {
		w.call.Store(hasEnded)
	}
}

// await waits until workers have ended, or, once ctx has, until none of them gets on and calls of the allocator do not return. Then it
// reports the first of these, which it has abandoned.
func (r *run) await(ctx context.Context, ended <-chan struct{}, workers []worker) (stuck *worker) {
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	const most = 20
	look := time.NewTicker(max(1, patience/most))
	defer look.Stop()
	last := make([]int64, len(workers))
	for looks := 0; ; looks++ {
		select {
		case <-ended:
			return nil
		case <-look.C:
		}
		left := false
		for i := range workers {
			now := workers[i].call.Load()
			left = left || now >= 0
			if now != last[i] || now == 0 { // it has got on, or it fills a block
				last[i], looks = now, 0
			}
		}
		switch {
		case !left && stuck != nil:
			return stuck
		case looks < most:
			continue
		}
		for i := range workers { // those that return just now are waited for
			if now := last[i]; now > 0 && workers[i].call.CompareAndSwap(now, abandoned) && stuck == nil {
				stuck = &workers[i]
			}
		}
		looks = 0
	}
}

// stuck fails the replay, if nothing else has, with the call that a worker does not return from.
func (r *run) stuck(ctx context.Context, w *worker, atEnd bool) {
	f := w.failure(Stuck, fmt.Errorf("it has not returned: %w", context.Cause(ctx)))
	f.AtEnd = atEnd
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.result.First == nil {
		r.result.Failed++
		r.result.First = f
	}
}
