//go:build race

package blockalloc

// single is a field of an allocator that is for one goroutine at a time. Each operation
// writes to it, so that the race detector reports two goroutines even if the rest of
// their work does not collide.
type single struct{ uses uint64 }

func (s *single) use() { s.uses++ }
