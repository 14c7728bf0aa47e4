package blockalloc_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// scopes is a Scoped and the scopes inside it. The innermost is the allocator.
type scopes struct {
	*placed
	open  []openScope // the root and the open scopes, outermost first
	ended []*blockalloc.Scoped
}

// openScope is a scope whose function waits, in a coroutine, for leave.
type openScope struct {
	*blockalloc.Scoped
	first  int // the number of pieces before it
	live   int // the number of live blocks before it
	leave  *func() error
	resume func() error // returns what Scope returns
}

var errLeave = errors.New("the scope's function failed")

func (s *scopes) innermost() openScope { return s.open[len(s.open)-1] }

// enter opens a scope before which there are so many live blocks.
func (s *scopes) enter(live int) error {
	var err error
	leave := new(func() error)
	next, _ := iter.Pull(func(yield func(*blockalloc.Scoped) bool) {
		err = s.innermost().Scope(func(inner *blockalloc.Scoped) error {
			yield(inner)
			return (*leave)()
		})
	})
	inner, ok := next()
	if !ok {
		return err
	}
	resume := func() error { next(); return err }
	s.open = append(s.open, openScope{inner, len(s.pieces), live, leave, resume})
	s.inner, s.first = inner, len(s.pieces)
	return nil
}

// exit ends the innermost scope, whose function then does as leave. It returns what Scope
// returns or panics with, and the blocks that were live.
func (s *scopes) exit(leave func() error) (gone []blockalloc.Block, err error) {
	o := s.innermost()
	*o.leave = leave
	func() {
		defer func() {
			if r := recover(); r != nil {
				err = r.(error)
			}
		}()
		err = o.resume()
	}()
	s.open = s.open[:len(s.open)-1]
	s.ended = append(s.ended, o.Scoped)
	s.inner, s.first = s.innermost().Scoped, s.innermost().first
	return s.cut(o.first), err
}

// Close ends all scopes and closes the root.
func (s *scopes) Close() error {
	for len(s.open) > 1 {
		if _, err := s.exit(func() error { return nil }); err != nil {
			return err
		}
	}
	return s.open[0].Close()
}

var scopedSteps = []blocktest.Step{
	{Name: "enter a scope", Weight: 3, Do: func(m *blocktest.State) error {
		s := m.Allocator.(*scopes)
		if len(s.open) > 6 {
			return nil
		}
		m.Freeze(len(m.Live))
		return s.enter(len(m.Live))
	}},
	{Name: "leave the scope", Weight: 3, Do: func(m *blocktest.State) error {
		s := m.Allocator.(*scopes)
		if len(s.open) == 1 {
			return nil
		}
		how := m.IntN(3)
		m.Logf("by %s", [...]string{"return", "an error", "a panic"}[how])
		gone, err := s.exit([...]func() error{
			func() error { return nil },
			func() error { return errLeave },
			func() error { panic(errLeave) },
		}[how])
		m.Freed(gone...)
		m.Freeze(s.innermost().live)
		if want := [...]error{nil, errLeave, errLeave}[how]; err != want {
			return fmt.Errorf("Scope: %v, want %v", err, want)
		}
		return nil
	}},
	{Name: "use an outer scope", Do: useOuter},
	{Name: "use an ended scope", Do: useEnded},
}

// useOuter uses an outer scope, or a block of one from the innermost.
func useOuter(m *blocktest.State) error {
	s := m.Allocator.(*scopes)
	last := len(s.open) - 1
	if last == 0 {
		return nil
	}
	outer := s.open[m.IntN(last)]
	if b, err := outer.Allocate(blockalloc.BlockLayout(1 << m.IntN(8))); !errors.Is(err, blockalloc.ErrScoped) || !b.IsZero() {
		return fmt.Errorf("Allocate = %v, %v", b, err)
	}
	if err := outer.Scope(nil); !errors.Is(err, blockalloc.ErrScoped) {
		return fmt.Errorf("Scope: %v", err)
	}
	if err := outer.Close(); !errors.Is(err, blockalloc.ErrScoped) {
		return fmt.Errorf("Close: %v", err)
	}
	if len(m.Live) == 0 {
		return nil
	}
	i := m.IntN(len(m.Live))
	b := m.Live[i]
	if err := outer.Free(b); !errors.Is(err, blockalloc.ErrScoped) {
		return fmt.Errorf("Free(%v): %v", b, err)
	}
	if n, err := outer.Reallocate(b, uintptr(m.IntN(256))); !errors.Is(err, blockalloc.ErrScoped) || n != b {
		return fmt.Errorf("Reallocate(%v) = %v, %v", b, n, err)
	}
	if i < s.open[last].live {
		if err := s.Free(b); !errors.Is(err, blockalloc.ErrNotOwned) {
			return fmt.Errorf("Free(%v) by the innermost: %v", b, err)
		}
	}
	return nil
}

// useEnded uses a scope that has ended.
func useEnded(m *blocktest.State) error {
	s := m.Allocator.(*scopes)
	if len(s.ended) == 0 {
		return nil
	}
	old := s.ended[m.IntN(len(s.ended))]
	if b, err := old.Allocate(blockalloc.BlockLayout(1 << m.IntN(8))); !errors.Is(err, blockalloc.ErrClosed) || !b.IsZero() {
		return fmt.Errorf("Allocate = %v, %v", b, err)
	}
	if len(m.Live) == 0 {
		return nil
	}
	b := m.Live[m.IntN(len(m.Live))]
	if err := old.Free(b); !errors.Is(err, blockalloc.ErrClosed) || old.Owns(b) {
		return fmt.Errorf("Free(%v): %v; owned: %t", b, err, old.Owns(b))
	}
	return nil
}

// scopedBlocks: each scope owns its own live blocks and no others.
func scopedBlocks(a blockalloc.Allocator, live []blockalloc.Block) error {
	s := a.(*scopes)
	for i, o := range s.open {
		end := len(s.pieces)
		if i+1 < len(s.open) {
			end = s.open[i+1].first
		}
		for j, c := range s.pieces {
			twin := slices.ContainsFunc(s.pieces[o.first:end], func(d piece) bool {
				return !d.freed && d.block.Addr() == c.block.Addr() && d.block.Size() == c.block.Size()
			})
			if owns := o.Owns(c.block); owns != twin {
				return fmt.Errorf("scope %d of %d: Owns(%v), of piece %d = %t", i, len(s.open), c.block, j, owns)
			}
		}
	}
	return s.agree(live)
}

// scopedConfigs describe Scopeds of 4 MiB, and of so little that much does not fit.
func scopedConfigs() map[string]blocktest.Config {
	configs := make(map[string]blocktest.Config)
	for name, c := range map[string]blocktest.Config{
		"large": {MaxSize: 1 << 20, Capacity: 4 << 20},
		"small": {MaxSize: 1 << 10, MaxLive: 2, Capacity: 3000},
	} {
		c.NewOver = func(_ testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
			root, err := blockalloc.NewScoped(parent, c.Capacity)
			if err != nil {
				return nil, err
			}
			p, err := place(placed{inner: root})
			return &scopes{placed: p, open: []openScope{{Scoped: root}}}, err
		}
		c.Bounded, c.Arena, c.SingleThreaded = true, true, true
		c.Steps, c.Check = scopedSteps, scopedBlocks
		configs[name] = c
	}
	return configs
}

func TestScopedConforms(t *testing.T) {
	t.Parallel()
	for name, c := range scopedConfigs() {
		t.Run(name, func(t *testing.T) { blocktest.Run(t, c) })
	}
}

func FuzzScoped(f *testing.F) { blocktest.Fuzz(f, scopedConfigs()["small"]) }
