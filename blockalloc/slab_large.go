package blockalloc

import "errors"

// allocateOther serves a request that no slot serves.
func (s *Slab) allocateOther(l Layout) (Block, error) {
	if err := l.Check(); err != nil {
		return Block{}, allocateError("Slab", l, err)
	}
	if l.Size == 0 {
		return Block{}, nil
	}
	if s.closed.Load() {
		return Block{}, allocateError("Slab", l, ErrClosed)
	}
	b, err := s.allocateBesideOthers(l)
	if !isOutOfMemory(err) {
		return b, err
	}
	s.gate.Lock() // now nobody else has a block that is on its way back
	defer s.gate.Unlock()
	_ = s.trim()
	return s.allocateLarge(l)
}

// allocateBesideOthers calls allocateLarge with the gate read-locked.
func (s *Slab) allocateBesideOthers(l Layout) (Block, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.allocateLarge(l)
}

// allocateLarge gets a block straight from the parent. The gate is held.
func (s *Slab) allocateLarge(l Layout) (Block, error) {
	if s.closed.Load() {
		return Block{}, allocateError("Slab", l, ErrClosed)
	}
	b, err := s.parent.Allocate(l)
	if err == nil {
		s.large.add(b, struct{}{})
	}
	return b, err
}

// reallocateLarge has the parent reallocate b.
func (s *Slab) reallocateLarge(b Block, size uintptr) (Block, error) {
	n, err := s.reallocateBesideOthers(b, size)
	if !isOutOfMemory(err) {
		return n, err
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	_ = s.trim()
	return s.reallocateByParent(b, size)
}

// reallocateBesideOthers calls reallocateByParent with the gate read-locked.
func (s *Slab) reallocateBesideOthers(b Block, size uintptr) (Block, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.reallocateByParent(b, size)
}

// reallocateByParent has the parent reallocate b. The gate is held. Meanwhile b is not
// live, because the parent may give its old address away before it returns. It is live
// again if the parent fails, panics or ends the goroutine.
func (s *Slab) reallocateByParent(b Block, size uintptr) (Block, error) {
	live, err := s.large.take(b)
	if err != nil {
		return b, reallocateError("Slab", b, size, err)
	}
	defer func() { s.large.add(live, struct{}{}) }()
	exact := live
	exact.align |= b.align & zeroed
	n, err := s.parent.Reallocate(exact, size)
	if err != nil {
		return b, err
	}
	n.clearSlack(b, exact)
	live = n
	return n, nil
}

// resizeByParent has the parent resize b, which is not live meanwhile.
func (s *Slab) resizeByParent(b Block, size uintptr) (Block, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	live, err := s.large.take(b)
	if err != nil {
		return b, resizeError("Slab", b, size, err)
	}
	defer func() { s.large.add(live, struct{}{}) }()
	exact := live
	exact.align |= b.align & zeroed
	n, err := Resize(s.parent, exact, size)
	if err != nil {
		return b, err
	}
	n.clearSlack(b, exact)
	live = n
	return n, nil
}

// freeLarge frees a block that is no slot.
func (s *Slab) freeLarge(b Block) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	live, err := s.large.take(b)
	if err != nil {
		return freeError("Slab", b, err)
	}
	freed := false
	defer func() {
		if !freed {
			s.large.add(live, struct{}{})
		}
	}()
	err = s.parent.Free(live)
	freed = err == nil
	return err
}

// isOutOfMemory reports whether giving blocks back and asking again may help.
func isOutOfMemory(err error) bool {
	return errors.Is(err, ErrOutOfMemory) || errors.Is(err, ErrLimit)
}

// sumLarge returns the number and the bytes of the live blocks that came straight
// from the parent.
func (s *Slab) sumLarge() (blocks, size int64) {
	for i := range s.large.shards {
		shard := &s.large.shards[i]
		shard.mu.Lock()
		for _, e := range shard.live {
			blocks++
			size += int64(e.block.size)
		}
		shard.mu.Unlock()
	}
	return blocks, size
}
