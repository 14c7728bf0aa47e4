package memlimit

import (
	"flag"
	"testing"

	"github.com/alloctrace/alloctrace/internal/fields"
)

var _ = flag.Bool("update", false, "write the golden files of testdata anew")

func TestFields(t *testing.T) { fields.Compare(t, "testdata/fields.txt", fields.JSON(t, Stats{})) }

func TestPacerFields(t *testing.T) {
	fields.Compare(t, "testdata/pacer_fields.txt", fields.JSON(t, PacerStats{}))
}
