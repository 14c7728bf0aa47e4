package debug

// TakeGuards counts so many more blocks of other Allocators that have mappings, less if n is
// negative.
func TakeGuards(n int64) { guardedByAll.Add(n) }

// MaxGuardedByAll is how many blocks of all Allocators have mappings at most.
const MaxGuardedByAll = defaultMaxGuarded
