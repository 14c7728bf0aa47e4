package sloghook_test

import (
	"log/slog"
	"os"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/sloghook"
)

func Example() {
	logger := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: dropTime}))
	mem := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithName("cache"), alloctrace.WithHooks(sloghook.New(logger.Handler())))
	_, _ = mem.Allocate(blockalloc.BlockLayout(4096))
	// Output:
	// {"level":"WARN","msg":"allocate failed","allocator":"cache","addr":0,"size":4096,"align":4096,"error":"blockalloc: Null.Allocate(4096 B aligned to 4096): out of memory"}
}
