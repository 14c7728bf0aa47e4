package backstop

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// made is whether the program has made a Backstop.
var made atomic.Bool

// Collect runs the garbage collector, and waits until all that was dropped is freed and reported: of
// each Backstop in the program. It is for tests, and for the end of a program, so that what is live
// after it was not dropped. It also waits for all other cleanups in the program that are due. If ctx
// is done before, it returns the error of that. It does nothing if the program has made no Backstop.
//
// A handle that a variable in a running function still holds is not dropped, nor is the first time
// one that an object with a finalizer refers to.
func Collect(ctx context.Context) error {
	if !made.Load() {
		return nil
	}
	runtime.GC() // what is in a sync.Pool alone is unreachable from the second one on
	runtime.GC() // has queued the cleanups of all that is unreachable when it returns
	queue := []metrics.Sample{{Name: "/gc/cleanups/executed:cleanups"}, {Name: "/gc/cleanups/queued:cleanups"}}
	for polls := 0; ; polls++ {
		// The runtime reads executed first. So if both are equal, nothing was queued when it read the
		// second one. What its cleanups have left to do is unfinished by then.
		metrics.Read(queue)
		if queue[0].Value.Uint64() == queue[1].Value.Uint64() && unfinished.Load() == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("backstop: Collect: %w: %d cleanups are queued, and %d dropped blocks are not reported yet", context.Cause(ctx), queue[1].Value.Uint64()-queue[0].Value.Uint64(), unfinished.Load())
		}
		if polls < 100 {
			runtime.Gosched()
		} else {
			time.Sleep(50 * time.Microsecond) // what OnDrop waits for may need an idle moment, as on js/wasm
		}
	}
}
