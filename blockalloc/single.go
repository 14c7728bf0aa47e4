//go:build !race

package blockalloc

// single costs nothing without the race detector: see single_race.go.
type single struct{}

func (single) use() {}
