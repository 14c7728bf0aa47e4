//go:build !race

package hooks

// store and load write and read a word of a record, as [ringShard] says: what they
// see may be of different records.
func store(w *uint64, v uint64) { *w = v }

func load(w *uint64) uint64 { return *w }
