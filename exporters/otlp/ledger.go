package otlp

import (
	"errors"
	"fmt"
	"sync"
)

// Stats counts the sampled spans that have ended. Spans that a sampler did not
// sample are in none of the counts.
type Stats struct {
	Accepted int64 // taken into the queue
	Exported int64 // accepted, and confirmed by the collector or written to the file
	Failed   int64 // accepted, and refused, timed out, or without an answer when Shutdown gave up
	Dropped  int64 // not accepted: the queue was full, or Shutdown had begun
}

// Pending returns the number of spans accepted and neither exported nor
// failed: those that wait in the queue or are being sent.
func (s Stats) Pending() int64 { return s.Accepted - s.Exported - s.Failed }

// Lost returns the number of spans that ended and will not arrive.
func (s Stats) Lost() int64 { return s.Failed + s.Dropped }

// errGivenUp is the reason for which batches fail once Shutdown gives up.
var errGivenUp = errors.New("no answer before Shutdown gave up")

// A ledger keeps the counts. Its one mutex makes every snapshot consistent;
// it is held for a few nanoseconds and never across input or output.
type ledger struct {
	limit int64 // spans that may be pending

	mu       sync.Mutex
	stats    Stats
	closed   bool // no span is admitted any more
	finished bool // no span is pending any more
	lastErr  error
	reported int64 // losses that a ForceFlush has already returned
}

// admit counts a span that has ended and, if there is a place for it, calls
// enqueue, which must not block. Holding the lock across enqueue is what lets
// close promise that no span enters the queue after it.
func (l *ledger) admit(enqueue func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.stats.Pending() >= l.limit {
		l.stats.Dropped++
		return
	}
	l.stats.Accepted++
	enqueue()
}

// settle records how a batch of spans ended. err is remembered as the newest
// reason for a loss; a bare errGivenUp yields to a reason already known.
func (l *ledger) settle(exported, failed int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.finished {
		return // they are counted as failed
	}
	l.stats.Exported += exported
	l.stats.Failed += failed
	if err != nil && (l.lastErr == nil || err != errGivenUp) {
		l.lastErr = err
	}
}

// close makes every later span a dropped one. It reports whether this call
// was the first.
func (l *ledger) close() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.closed
	l.closed = true
	return first
}

func (l *ledger) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// finish counts the spans that are still pending as failed, for good. It
// comes after close.
func (l *ledger) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finished = true
	if n := l.stats.Pending(); n > 0 {
		l.stats.Failed += n
		if l.lastErr == nil {
			l.lastErr = errGivenUp
		}
	}
}

func (l *ledger) snapshot() (Stats, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats, l.lastErr
}

// newLosses returns an error for the spans lost since it was last called, or
// nil if there were none.
func (l *ledger) newLosses(call, destination string) error {
	l.mu.Lock()
	lost := l.stats.Lost() - l.reported
	l.reported = l.stats.Lost()
	s, cause := l.stats, l.lastErr
	l.mu.Unlock()
	if lost == 0 {
		return nil
	}
	if cause == nil {
		cause = l.full()
	}
	return fmt.Errorf("otlp: %s: %d spans did not reach %s since the last flush (in all %d failed, %d dropped): %w",
		call, lost, destination, s.Failed, s.Dropped, cause)
}

// unfinished returns an error that counts every span that has not arrived, or
// nil if all of them have. ctxErr is the reason if no other is known.
func (l *ledger) unfinished(call, destination string, ctxErr error) error {
	s, cause := l.snapshot()
	missing := s.Lost() + s.Pending()
	if missing == 0 {
		return nil
	}
	switch {
	case ctxErr != nil && cause != nil:
		cause = fmt.Errorf("%w; newest failure: %w", ctxErr, cause)
	case ctxErr != nil:
		cause = ctxErr
	case cause == nil:
		cause = l.full()
	}
	return fmt.Errorf("otlp: %s: %d of %d spans did not reach %s (%d failed, %d dropped, %d pending): %w",
		call, missing, s.Accepted+s.Dropped, destination, s.Failed, s.Dropped, s.Pending(), cause)
}

// full is the reason for a drop when no delivery has failed.
func (l *ledger) full() error {
	return fmt.Errorf("more than %d spans waited at once, or spans ended after Shutdown; raise Options.QueueSize, or shut down last", l.limit)
}
