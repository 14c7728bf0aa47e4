// Wazeromem counts the memory of a module of wazero that has nothing but that.
package main

import (
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc/wazeromem"
)

func main() {
	ctx := context.Background()
	runtime := wazero.NewRuntime(ctx)
	defer runtime.Close(ctx)
	mem := alloctrace.Wrap(wazeromem.Default())
	guest, err := wazeromem.New(mem, wazeromem.Options{Limit: 128 << 10}).Instantiate(ctx, "guest", func(ctx context.Context) (api.Module, error) {
		return runtime.Instantiate(ctx, []byte("\x00asm\x01\x00\x00\x00\x05\x03\x01\x00\x01")) // a memory of a page or more
	})
	if err != nil {
		panic(err)
	}
	if s := mem.ChildStats()["guest"]; s.LiveBytes != 64<<10 {
		panic(s)
	}
	if err := guest.Close(ctx); err != nil || mem.Stats().LiveBytes != 0 {
		panic(err)
	}
}
