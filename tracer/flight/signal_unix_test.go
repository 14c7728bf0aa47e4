//go:build unix

package flight_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/tracer/flight"
	"os"
)

// TestSignal: a signal makes a record. A failure while that is written stops the ring, so that its own
// record has what was before it and nothing else, however much happens until then.
func TestSignal(t *testing.T) {
	written, goOn := make(chan string), make(chan bool)
	r := flight.New(flight.Options{Events: 64, Signals: []os.Signal{syscall.SIGUSR1}, TracerProvider: new(spantest.Recorder), Writer: writerFunc(func(p []byte) (int, error) {
		written <- string(p)
		<-goOn
		return len(p), nil
	})})
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithHooks(r))
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if text := <-written; !strings.Contains(text, "\nwhy: signal user defined signal 1\n") {
		t.Error(text)
	}
	b := allocate(t, mem, 512)
	_, _ = mem.Allocate(blockalloc.BlockLayout(2 << 20))
	for range 100 {
		free(t, mem, allocate(t, mem, 64))
	}
	goOn <- true
	text := <-written
	if !strings.Contains(text, "allocated                512 B") || strings.Contains(text, "freeing") || !strings.Contains(text, "+0.000ms allocate failed ") {
		t.Error(text)
	}
	free(t, mem, b)
	goOn <- true
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if s := r.Stats(); s.Records != 2 || s.Missed != 200 {
		t.Errorf("%+v", s)
	}
}
