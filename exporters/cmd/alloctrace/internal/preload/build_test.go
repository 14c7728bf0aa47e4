package preload

import (
	"slices"
	"testing"
)

// TestEnviron: what the program loads already is loaded too.
func TestEnviron(t *testing.T) {
	got := Options{5, 6, 7}.Environ([]string{"A=1", "LD_PRELOAD=/x.so:/y.so", "B=2"}, "/r.so", "/a b")
	if want := []string{"A=1", "B=2", "LD_PRELOAD=/r.so:/x.so:/y.so", "ALLOCTRACE_PRELOAD=5 6 7 /a b"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
