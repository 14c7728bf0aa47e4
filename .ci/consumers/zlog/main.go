// Zlog logs each event.
package main

import (
	"bytes"

	"github.com/rs/zerolog"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/zlog"
)

func main() {
	var out bytes.Buffer
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(zlog.New(zerolog.New(&out))))
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err != nil || mem.Free(b) != nil || bytes.Count(out.Bytes(), []byte("\n")) != 2 {
		panic(out.String())
	}
}
