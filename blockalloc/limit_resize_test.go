package blockalloc_test

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// TestLimitInPlace: a block that stays where it is needs room for what it grows by, also through wrappers. The blocks of
// a Pool are powers of two.
func TestLimitInPlace(t *testing.T) {
	for name, wrap := range map[string]func(blockalloc.Allocator) blockalloc.Allocator{
		"bare":     func(a blockalloc.Allocator) blockalloc.Allocator { return a },
		"Proxy":    func(a blockalloc.Allocator) blockalloc.Allocator { return alloctrace.Wrap(a) },
		"Locked":   func(a blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLocked(a) },
		"Limit":    func(a blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLimit(a, 1<<40) },
		"failing":  func(a blockalloc.Allocator) blockalloc.Allocator { return failing.If(a, never) },
		"Fallback": func(a blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewFallback(blockalloc.Null{}, a) },
		"Segregate": func(a blockalloc.Allocator) blockalloc.Allocator {
			return blockalloc.NewSegregate(blockalloc.Null{}, a, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			pool := &blockalloc.Pool{}
			l := blockalloc.NewLimit(wrap(pool), 1<<20)
			b := mustAllocate(t, l, 600<<10, 8)
			first := b
			for _, size := range []uintptr{1 << 20, 700 << 10, 600<<10 + 1} {
				n, err := l.Reallocate(b, size)
				if err != nil || n.Addr() != first.Addr() || l.Used() != 1<<20 || n.Requested() != size {
					t.Fatalf("Reallocate(%v, %d) = %v, %v, with %d bytes used", b, size, n, err, l.Used())
				}
				b = n
			}
			for _, size := range []uintptr{1<<20 + 1, 2 << 20, 100 << 10} { // the last would be copied
				if n, err := l.Reallocate(b, size); !errors.Is(err, blockalloc.ErrLimit) || n != b || l.Used() != 1<<20 {
					t.Errorf("Reallocate(%v, %d) = %v, %v, with %d bytes used; want ErrLimit", b, size, n, err, l.Used())
				}
			}
			if n, err := l.Resize(b, 100<<10); !errors.Is(err, blockalloc.ErrWouldMove) || n != b || l.Used() != 1<<20 {
				t.Errorf("Resize to another class = %v, %v, with %d bytes used; want ErrWouldMove", n, err, l.Used())
			}
			mustFree(t, l, b)
			if l.Used() != 0 {
				t.Errorf("in the end %d bytes are used", l.Used())
			}
			if err := pool.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLimitRemaps: what System moves without a copy needs no room for both, wherever the Limit has it.
func TestLimitRemaps(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("System copies on " + runtime.GOOS)
	}
	const max = 3 << 20
	l := blockalloc.NewLimit(blockalloc.NewLocked(alloctrace.Wrap(&blockalloc.System{})), max)
	b := mustAllocate(t, l, 1<<20, 64<<10)
	paint(b.Bytes(), 1)
	for size := uintptr(1<<20 + 64<<10); size <= max; size += 64 << 10 {
		n, err := l.Reallocate(b, size-1)
		if err != nil || l.Used() != int64(size) || painted(n.Bytes()[:b.Size()], 1) >= 0 {
			t.Fatalf("Reallocate(%v, %d) = %v, %v, with %d bytes used", b, size, n, err, l.Used())
		}
		b = n
		paint(b.Bytes(), 1)
	}
	if n, err := l.Reallocate(b, max+1); !errors.Is(err, blockalloc.ErrLimit) || n != b || l.Used() != max {
		t.Errorf("beyond the limit: %v, %v, with %d bytes used", n, err, l.Used())
	}
	if b, err := l.Reallocate(b, 1<<20); err != nil || l.Used() != 1<<20 {
		t.Errorf("shrunk at the limit: %v, %v, with %d bytes used", b, err, l.Used())
	} else {
		mustFree(t, l, b)
	}
}

// slacker is an allocator that resizes in place and grants 100 bytes more than was asked for, once the
// block has more than 1000. It has room for any size.
type slacker struct {
	blockalloc.Allocator
	memory  blockalloc.Block
	refuses bool // to shrink
	ends    bool // the goroutine instead of resizing
}

func (s *slacker) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	return blockalloc.NewBlock(s.memory.Pointer(), l.Size, l)
}

func (s *slacker) Resize(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if s.ends {
		runtime.Goexit()
	}
	if s.refuses && size < b.Size() {
		return b, blockalloc.ErrWouldMove
	}
	granted := size
	if size > 1000 {
		granted += 100
	}
	return blockalloc.NewBlock(b.Pointer(), granted, blockalloc.Layout{Size: size, Align: b.Align()})
}

// TestLimitSlackInPlace: a block that is granted more than there is room for gets its size back.
func TestLimitSlackInPlace(t *testing.T) {
	inner := &slacker{memory: borrow(t, 4096, 8)}
	l := blockalloc.NewLimit(inner, 2000)
	b := mustAllocate(t, l, 500, 8)
	n, err := l.Resize(b, 1950)
	if !errors.Is(err, blockalloc.ErrLimit) || n != b || l.Used() != 500 {
		t.Errorf("Resize = %v, %v, with %d bytes used; want the block, ErrLimit and 500", n, err, l.Used())
	}
	if n, err = l.Resize(b, 1900); err != nil || n.Size() != 2000 || l.Used() != 2000 {
		t.Fatalf("Resize = %v, %v, with %d bytes used; want 2000", n, err, l.Used())
	}
	b = n
	inner.refuses = true
	l.SetMax(2050)
	if n, err = l.Reallocate(b, 2050); err != nil || l.Used() != 2150 {
		t.Errorf("Reallocate of what cannot shrink back = %v, %v, with %d bytes used; want 2150", n, err, l.Used())
	}
	b, inner.ends = n, true
	l.SetMax(4000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = l.Resize(b, 3000)
		t.Error("Resize has returned")
	}()
	if <-done; l.Used() != 2150 {
		t.Errorf("%d bytes are used after the goroutine has ended, want 2150", l.Used())
	}
}

// remeter counts what System has, which never has a block twice.
type remeter struct{ meter }

func (m *remeter) change(b blockalloc.Block, size uintptr, f func(blockalloc.Block, uintptr) (blockalloc.Block, error)) (blockalloc.Block, error) {
	added := int64(size+4095)&^4095 - int64(b.Size())
	m.add(max(0, added))
	n, err := f(b, size)
	if err != nil {
		m.add(-max(0, added))
		return n, err
	}
	m.add(int64(n.Size()) - int64(b.Size()) - max(0, added))
	return n, nil
}

func (m *remeter) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	return m.change(b, size, m.Allocator.Reallocate)
}

func (m *remeter) Resize(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	return m.change(b, size, m.Allocator.(blockalloc.Resizer).Resize)
}

// TestLimitHoldsInPlace is TestLimitHolds over allocators that resize in place and move without copying. Shrinking does
// not fail: TestLimitSlackInPlace has what happens where it does.
func TestLimitHoldsInPlace(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("System copies on " + runtime.GOOS)
	}
	for name, inner := range map[string]blockalloc.Allocator{
		"System": &blockalloc.System{}, "Reserved": &blockalloc.Reserved{Max: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			m := &remeter{meter: meter{Allocator: inner}}
			var calls atomic.Int64
			fails := failing.If(m, func(c failing.Call) bool {
				shrinks := c.Op == failing.OpReallocate && c.Layout.Size <= c.Block.Size()
				return !shrinks && c.Op != failing.OpFree && calls.Add(1)%17 == 0
			})
			limitHolds(t, &m.meter, fails, 1<<20, 300_000, 4095)
		})
	}
}
