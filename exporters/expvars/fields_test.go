package expvars_test

import (
	"flag"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/expvars"
	"github.com/alloctrace/alloctrace/internal/fields"
)

var _ = flag.Bool("update", false, "write the golden files of testdata anew")

type panicking struct{}

func (panicking) Stats() counter.Stats { panic("no stats") }

// TestFields: a variable has the fields of counter.Stats, or one that says that these cannot be read.
func TestFields(t *testing.T) {
	var c counter.Counter
	c.Allocate(64, 64)
	if got, want := fields.Object(t, []byte(expvars.Func(&c).String())), fields.JSON(t, c.Stats()); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("a variable has %q, and counter.Stats %q", got, want)
	}
	fields.Compare(t, "testdata/fields.txt", fields.Object(t, []byte(expvars.Func(panicking{}).String())))
}
