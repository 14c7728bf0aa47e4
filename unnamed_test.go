package alloctrace_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestUnnamed: the errors of a Proxy without a name do not name it "".
func TestUnnamed(t *testing.T) {
	for name, want := range map[string]string{"": "a proxy without a name", "db": `proxy "db"`} {
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName(name))
		b, err := mem.Allocate(blockalloc.BlockLayout(64))
		if err != nil {
			t.Fatal(err)
		}
		live := mem.Close()
		_, allocate := mem.Allocate(blockalloc.BlockLayout(64))
		_, reallocate := mem.Reallocate(b, 8)
		_, wait := mem.AllocateContext(t.Context(), blockalloc.BlockLayout(64))
		for _, err := range []error{live, allocate, reallocate, wait} {
			if text := fmt.Sprint(err); !strings.Contains(text, want) || strings.Contains(text, `""`) {
				t.Errorf("%q, want one with %q", text, want)
			}
		}
		if err := mem.Free(b); err != nil {
			t.Error(err)
		}
	}
}
