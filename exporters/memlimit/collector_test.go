package memlimit

import (
	"runtime/metrics"
	"testing"

	"github.com/alloctrace/alloctrace/internal/measure"
)

// goal is the runtime's heap goal, in bytes.
func goal() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// TestCollector: the runtime knows all that is read, and reading allocates nothing.
func TestCollector(t *testing.T) {
	c := newCollector()
	c.read()
	for _, s := range c.samples {
		if s.Value.Kind() != metrics.KindUint64 {
			t.Errorf("%s is of kind %v, want KindUint64", s.Name, s.Value.Kind())
		}
	}
	measure.WantAllocs(t, 0, c.read)
}
