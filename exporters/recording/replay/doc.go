// Package replay performs the operations of a recording on any allocator, checks what it hands out, and measures it.
//
//	p, err := replay.Load(reader.Events())
//	…
//	result, err := replay.Run(ctx, p, new(blockalloc.Pool), replay.Options{})
//
// The operations of a server so become a benchmark of allocators that runs on a laptop, and a test: each block is filled
// with a pattern of its own, which must be there when the block is released. What fails is a [*Failure], which names the event.
//
// [Shrink] makes the smallest recording that still fails.
package replay
