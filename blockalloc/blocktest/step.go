package blocktest

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A Step is an operation that only some allocators have, such as Trim or Reset. The
// clause Model mixes it into its own operations, and reports it by name. For example,
// an arena whose Reset frees all blocks:
//
//	blocktest.Step{Name: "Reset", Do: func(s *blocktest.State) error {
//		s.Allocator.(*Arena).Reset()
//		s.Freed(s.Live...)
//		return nil
//	}}
//
// Steps keep their own state, such as a list of marks, in a type that embeds the
// allocator and that New or NewOver returns.
type Step struct {
	// Name is what the list of operations calls the step.
	Name string

	// Weight says how often the step is done. The model's own operations weigh 32 in all:
	// Allocate 8, Free and Reallocate 5 each. Zero means 1. All Steps together may weigh
	// 224.
	Weight int

	// Do does the step and returns what is wrong, if anything. An error that wraps
	// [ErrInjected] is accepted if the suite has just made the parent fail. Do must choose
	// by [State.IntN], so that the step can be replayed.
	Do func(s *State) error
}

// State is what the model knows when it does a [Step]. It is valid until Do returns.
type State struct {
	// Allocator is what New or NewOver returned.
	Allocator blockalloc.Allocator

	// Live are the live blocks, oldest first. A block that Reallocate moved is the newest.
	// Live does not change during the step, and must not be changed.
	Live []blockalloc.Block

	model *model
	rnd   *rand.Rand
	wrong error
}

// IntN returns a random number from 0 to n-1, the same when the step is replayed.
func (s *State) IntN(n int) int { return s.rnd.IntN(n) }

// Logf adds a line to the list of operations that a failure prints.
func (s *State) Logf(format string, args ...any) { s.model.logf("\t"+format, args...) }

// Freed says that the step has freed these blocks of Live.
func (s *State) Freed(blocks ...blockalloc.Block) {
	for _, b := range blocks {
		if err := s.model.freed(b); err != nil && s.wrong == nil {
			s.wrong = err
		}
	}
}

// Freeze says that exactly the oldest n live blocks must not be freed or reallocated,
// until the next Freeze: those outside of an open scope, for example. The model does
// not free them in the end: Close must.
func (s *State) Freeze(n int) {
	if most := len(s.model.live); (n < 0 || n > most) && s.wrong == nil {
		s.wrong = fmt.Errorf("Freeze(%d) of %d live blocks", n, most)
		return
	}
	s.model.frozen = n
}

// own does a step of the Config.
func (m *model) own(step Step, o operation) error {
	m.logf("%s", step.Name)
	for _, b := range m.live { // what the step frees cannot be looked at afterwards
		if err := m.intact(b); err != nil {
			return err
		}
	}
	failures := m.failures()
	seed := uint64(o[1])<<24 | uint64(o[2])<<16 | uint64(o[3])<<8 | uint64(o[4])
	s := &State{Allocator: m.a, Live: slices.Clone(m.blocks()), model: m, rnd: rand.New(rand.NewPCG(seed, 0))}
	err := step.Do(s)
	if err == nil {
		err = s.wrong
	}
	if live := m.blocks(); m.Arena && !slices.Equal(live, s.Live[:len(live)]) { // not the newest were freed
		m.disordered = true
	}
	switch {
	case err == nil:
		return nil
	case m.failures() > failures && m.injected(err, failures):
		m.logf("\trefused: %v", err)
		return nil
	}
	return fmt.Errorf("step %s: %w", step.Name, err)
}

// freed forgets a block that a step has freed.
func (m *model) freed(b blockalloc.Block) error {
	at := slices.IndexFunc(m.live, func(l *modelBlock) bool { return l.Block == b })
	switch {
	case at < 0:
		return fmt.Errorf("Freed(%v), which is not live", b)
	case at < m.frozen:
		return fmt.Errorf("Freed(%v), which is frozen", b)
	}
	m.remove(m.live[at])
	m.bury(b)
	return m.owns(b, false)
}

// blocks returns the live blocks. The slice is valid until the next call.
func (m *model) blocks() []blockalloc.Block {
	m.shown = m.shown[:0]
	for _, b := range m.live {
		m.shown = append(m.shown, b.Block)
	}
	return m.shown
}

// check calls the Config's Check.
func (m *model) check() error {
	if m.Check == nil {
		return nil
	}
	if err := m.Check(m.a, m.blocks()); err != nil {
		return fmt.Errorf("the Config's Check: %w", err)
	}
	return nil
}

// checkSteps panics if a step cannot be done.
func checkSteps(steps []Step) {
	for i, step := range steps {
		if step.Name == "" || step.Do == nil || step.Weight < 0 {
			panic(fmt.Sprintf("blocktest: Config.Steps[%d] has the name %q, the weight %d and Do %t: give it a name, a Do, and no negative weight",
				i, step.Name, step.Weight, step.Do != nil))
		}
	}
}
