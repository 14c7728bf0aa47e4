package zlog_test

import (
	"testing"

	"github.com/rs/zerolog"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/zlog"
)

// blockWriter is a log writer that keeps each line in a block of its own. For the
// sake of the test it stops at depth 100, where a real one would go on until the
// stack is full.
type blockWriter struct {
	mem            blockalloc.Allocator
	lines          []blockalloc.Block
	depth, deepest int
}

func (w *blockWriter) Write(line []byte) (int, error) {
	w.depth++
	defer func() { w.depth-- }()
	w.deepest = max(w.deepest, w.depth)
	if w.depth == 100 {
		return len(line), nil
	}
	b, err := w.mem.Allocate(blockalloc.Layout{Size: uintptr(len(line)), Align: 1})
	if err != nil {
		return 0, err
	}
	w.lines = append(w.lines, b)
	return copy(b.Bytes(), line), nil
}

// TestAllocatingLogger: a logger whose writer allocates from the Proxy that it
// logs for observes its own allocations, without end. From the quiet view it is
// not, and its blocks are counted all the same.
func TestAllocatingLogger(t *testing.T) {
	for name, c := range map[string]struct {
		view    func(*alloctrace.Proxy) *alloctrace.Proxy
		deepest int
	}{
		"loud":  {func(p *alloctrace.Proxy) *alloctrace.Proxy { return p }, 100},
		"quiet": {(*alloctrace.Proxy).Quiet, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var w blockWriter
			p := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(zlog.New(zerolog.New(&w))))
			w.mem = c.view(p)
			b, err := p.Allocate(blockalloc.BlockLayout(4096))
			if err != nil {
				t.Fatal(err)
			}
			if w.deepest != c.deepest {
				t.Errorf("the writer calls itself to depth %d, want %d", w.deepest, c.deepest)
			}
			if got, want := p.Stats().LiveBlocks, int64(1+len(w.lines)); got != want {
				t.Errorf("%d live blocks, want %d: the caller's and the writer's", got, want)
			}
			for _, b := range append(w.lines, b) {
				if err := p.Quiet().Free(b); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
