package zlog_test

import (
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/zlog"
)

func Example() {
	log := zerolog.New(os.Stdout).With().Str("allocator", "cache").Logger()
	mem := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(zlog.New(log)))
	_, _ = mem.Allocate(blockalloc.BlockLayout(4096))
	// Output:
	// {"level":"warn","allocator":"cache","addr":"0000000000000000","size":4096,"align":4096,"error":"blockalloc: Null.Allocate(4096 B aligned to 4096): out of memory","message":"allocate failed"}
}

func Example_wrap() {
	log := zerolog.New(os.Stderr).With().Str("allocator", "cache").Logger()
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(zlog.New(log)))

	b, err := mem.Allocate(blockalloc.BlockLayout(64 << 10)) // 64 KiB at a multiple of 64 KiB
	if err != nil {
		log.Fatal().Err(err).Send()
	}
	copy(b.Bytes(), "outside the Go heap")
	fmt.Println(mem.Stats())
	fmt.Println(mem.Free(b), mem.Stats().LiveBytes)
	// Output:
	// live 64 KiB in 1 block, peak 64 KiB; 1 allocation, 0 reallocations, 0 frees, 0 failures; allocated 64 KiB, freed 0 B
	// <nil> 0
}
