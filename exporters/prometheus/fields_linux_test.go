package prometheus_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace/internal/fields"
)

// TestFields: the metrics and the labels of all collectors.
func TestFields(t *testing.T) {
	mem, _ := registered(t)
	hooks, _ := registeredHooks()
	var list []string
	for _, r := range []prometheus.Gatherer{mem, hooks, registeredRSS(t)} {
		for name, f := range families(t, r) {
			list = append(list, name+" "+strings.ToLower(f.GetType().String()))
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					list = append(list, l.GetName()+" label")
				}
			}
		}
	}
	fields.Compare(t, "testdata/fields.txt", list)
}
