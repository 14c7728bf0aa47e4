//go:build race

package blockalloc

// single is a field of an allocator that is for one goroutine at a time. Every
// operation writes to it under the race detector, which thereby reports two that
// are not in order, even where the rest of their work would not collide.
type single struct{ uses uint64 }

func (s *single) use() { s.uses++ }
