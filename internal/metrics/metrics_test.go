package metrics_test

import (
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/internal/metrics"
)

// TestNames holds each name to the rules: dots become underscores, a unit that is no
// annotation becomes a suffix, and a counter has _total.
func TestNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, m := range metrics.All {
		want := strings.ReplaceAll(m.Name, ".", "_")
		switch m.Unit {
		case "By":
			want += "_bytes"
		case "s":
			want += "_seconds"
		default:
			if !strings.HasPrefix(m.Unit, "{") {
				t.Errorf("%s has the unit %q, which this test does not know", m.Name, m.Unit)
			}
		}
		if m.Kind == metrics.Counter {
			want += "_total"
		}
		if m.Prometheus != want {
			t.Errorf("%s is %s to Prometheus, want %s", m.Name, m.Prometheus, want)
		}
		if seen[m.Name] || m.Help == "" || m.Kind == "" {
			t.Errorf("%+v stands twice, or is not complete", m)
		}
		seen[m.Name] = true
	}
}
