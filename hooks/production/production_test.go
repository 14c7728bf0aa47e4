package production_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
	"github.com/alloctrace/alloctrace/hooks/production"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/pages"
)

//go:noinline
func leaks(t *testing.T, mem blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := mem.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWrap: what happens is in all parts, and in the file after the end.
func TestWrap(t *testing.T) {
	dir, err := os.MkdirTemp("", "production-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // Windows cannot remove a file that is mapped
	for name, path := range map[string]string{"with a black box": filepath.Join(dir, "box"), "without one": ""} {
		t.Run(name, func(t *testing.T) {
			var observed int
			m, err := production.Wrap(new(blockalloc.Heap), production.Options{Name: "cache", BlackBox: path, Hooks: []alloctrace.Hook{
				ring.New(1, nil), countHook(func() { observed++ }),
			}})
			if errors.Is(err, errors.ErrUnsupported) && path != "" {
				return // no memory is shared with files here
			}
			if err != nil {
				t.Fatal(err)
			}
			m.Profile.SetRate(1)
			kept := leaks(t, m.Proxy, 5000)
			if err := m.Proxy.Free(leaks(t, m.Proxy, 1000)); err != nil {
				t.Fatal(err)
			}
			if r := m.Ring.Records(); len(r) != 3 || r[2].Kind != alloctrace.Freeing || r[2].Time.IsZero() {
				t.Errorf("the last events are %v", r)
			}
			if s := m.Proxy.Stats(); s.LiveBytes != 5000 || observed != 3 {
				t.Errorf("%v; %d events were observed", s, observed)
			}
			if at := m.Profile.Peak().Get(); at.Bytes != 6000 || len(m.Profile.Lifetimes()) != 1 && len(m.Profile.Lifetimes()) != 2 {
				t.Errorf("the peak is %v; lifetimes %v", at, m.Profile.Lifetimes())
			}
			if err := m.Close(); !errors.Is(err, alloctrace.ErrLive) {
				t.Errorf("Close: %v, want that a block is live", err)
			}
			if path != "" {
				c, err := blackbox.Open(path)
				if err != nil || len(c.Damage) > 0 || c.Closed.IsZero() || len(c.Events) != 3 || len(c.Proxies) != 1 || c.Proxies[0].Name != "cache" ||
					c.Proxies[0].Stats.LiveBytes != 5000 || c.Live.Bytes != 5000 || c.Peak.Bytes != 6000 ||
					!strings.HasSuffix(c.Live.Sites[0].Stack[0].Function, ".leaks") {
					t.Errorf("the file has %+v, %v", c, err)
				}
			}
			if err := m.Proxy.Free(kept); err != nil {
				t.Error(err)
			}
			if err := m.Close(); err != nil {
				t.Errorf("Close again: %v", err)
			}
		})
	}
}

// A countHook counts events.
type countHook func()

func (h countHook) Observe(context.Context, alloctrace.Event, error) { h() }

// TestGuards: an error is reported, and by the Proxy's error too.
func TestGuards(t *testing.T) {
	if !pages.Supported {
		return
	}
	var reports []*debug.Report
	m, err := production.Wrap(new(blockalloc.Heap), production.Options{OnReport: func(r *debug.Report) { reports = append(reports, r) }})
	if err != nil {
		t.Fatal(err)
	}
	m.Guard.SetRate(1)
	b := leaks(t, m.Proxy, 100)
	if err := m.Proxy.Free(b); err != nil {
		t.Fatal(err)
	}
	if err := m.Proxy.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) || len(reports) != 1 || reports[0].Kind != debug.DoubleFree {
		t.Errorf("the second free: %v; reports %v", err, reports)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// TestHoldsNothing: what the parts know of blocks does not hold them, whether blocks are guarded or not.
func TestHoldsNothing(t *testing.T) {
	dir, err := os.MkdirTemp("", "production-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, guarded := range map[string]int{"guarded": 1, "unguarded": 0} {
		t.Run(name, func(t *testing.T) {
			m, err := production.Wrap(&blockalloc.Reserved{Max: 1 << 20}, production.Options{BlackBox: filepath.Join(dir, name)})
			if errors.Is(err, errors.ErrUnsupported) {
				return // no memory is shared with files here, and Go writes no dump of its heap
			}
			if err != nil {
				t.Fatal(err)
			}
			m.Profile.SetRate(1)
			m.Guard.SetRate(guarded)
			const blocks = 20
			done := make(chan struct{})
			go func() { // whose stack is gone then
				defer close(done)
				for range blocks {
					if _, err := m.Proxy.Allocate(blockalloc.BlockLayout(4096)); err != nil {
						t.Error(err)
					}
				}
			}()
			<-done
			m.Box.Flush()
			u, err := m.Profile.Unreachable(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if u.Looked != blocks || u.Report.Blocks < blocks/2 { // a stale address can hide one
				t.Errorf("of %d blocks, all of which were dropped, %d are unreachable", u.Looked, u.Report.Blocks)
			}
			if err := m.Close(); !errors.Is(err, alloctrace.ErrLive) {
				t.Errorf("Close: %v; want that blocks are live", err)
			}
		})
	}
}

// TestBadPath: a black box that cannot be made is an error that says why.
func TestBadPath(t *testing.T) {
	m, err := production.Wrap(new(blockalloc.Heap), production.Options{BlackBox: filepath.Join(t.TempDir(), "none", "box")})
	if m != nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errors.ErrUnsupported) || !strings.HasPrefix(err.Error(), "production: Wrap: blackbox: ") {
		t.Errorf("%v, %v", m, err)
	}
}
