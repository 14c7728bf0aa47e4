// Package recording writes every event of a Proxy to a compact file, and reads such files.
//
//	rec, err := recording.Create("server.alloctrace", recording.Options{})
//	…
//	defer rec.Close()
//	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(rec))
//
// A [Recorder] has each event with its time, the calls that asked for the memory, the child and the region. A [Reader]
// returns them. The file is for those who want to know later what no counter says: what grew between two moments, who
// allocated it, how long it lived.
//
// The format is a stream of zstd frames, described in docs/recording.md. Any zstd tool unpacks it. Each frame is whole in
// itself, so that a file of a process that was killed is readable up to its last flush.
//
// The package has a module of its own for what it needs to compress.
package recording
