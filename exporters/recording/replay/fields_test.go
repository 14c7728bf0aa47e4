package replay_test

import (
	"context"
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
	"github.com/alloctrace/alloctrace/internal/fields"
)

var _ = flag.Bool("update", false, "write the golden file of testdata anew")

// TestFields: the fields of a Result in JSON are those of docs/fields.md.
func TestFields(t *testing.T) {
	var l list
	for i := range uintptr(20) {
		l.add(alloctrace.Allocated, 64*(1+i), 64)
		l[i].Requested, l[i].Proxy, l[i].Child, l[i].Region = 60, "mem", "cache", "GET /"
	}
	a := &rogue{size: 60, nth: 20, wrong: "allocate: overlap"}
	r, err := replay.Run(context.Background(), replay.New(l), a, replay.Options{Addresses: true})
	if err == nil {
		t.Fatal("a block that overlaps another was not found")
	}
	r.First.Acquired = r.First.Other // all that can be there
	r.Backend = new(replay.Backend)
	names := slices.DeleteFunc(fields.JSON(t, r), func(name string) bool { // they are events as first_failure.event
		return strings.HasPrefix(name, "first_failure.acquired.") || strings.HasPrefix(name, "first_failure.other.")
	})
	fields.Compare(t, "testdata/fields.txt", names)
}
