package recording_test

import (
	"bytes"
	"fmt"
	"log"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

func Example() {
	var file bytes.Buffer // most often recording.Create("server.alloctrace", recording.Options{})
	rec, err := recording.New(&file, recording.Options{})
	if err != nil {
		log.Fatal(err)
	}
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("mem"), alloctrace.WithHooks(rec))
	b, err := mem.Child("cache").Allocate(blockalloc.Layout{Size: 3000, Align: 8})
	if err != nil {
		log.Fatal(err)
	}
	if err := mem.Child("cache").Free(b); err != nil {
		log.Fatal(err)
	}
	if err := rec.Close(); err != nil {
		log.Fatal(err)
	}

	in, err := recording.NewReader(&file)
	if err != nil {
		log.Fatal(err)
	}
	defer in.Close()
	for e, err := range in.Events() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Proxy, e.Child, e.Kind, e.Requested)
	}
	// Output:
	// mem cache allocated 3000
	// mem cache freeing 0
}
