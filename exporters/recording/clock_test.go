package recording

import (
	"io"
	"testing"
	"testing/synctest"
)

// TestCoarseClock: where the clock stands still there is one queue, and else one for each processor.
func TestCoarseClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if isFine() {
			t.Error("a clock that is stopped is said to be fine")
		}
		rec, err := New(io.Discard, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(rec.queues) != 0 {
			t.Errorf("there are %d queues", len(rec.queues))
		}
		if err := rec.Close(); err != nil {
			t.Error(err)
		}
	})
}
