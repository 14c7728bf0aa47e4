package test_test

import (
	"flag"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/otelmetric"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/fields"
)

var _ = flag.Bool("update", false, "write the golden files of testdata anew")

// TestFields: the metrics with their units, and the attributes, of all registrations.
func TestFields(t *testing.T) {
	pool := new(blockalloc.Pool)
	mem := alloctest.New(t, alloctest.WithAllocator(blockalloc.NewLimit(pool, 1<<30)))
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	producer := new(otelmetric.Producer)
	reader, provider := newReader(producer)
	to := otelmetric.WithMeterProvider(provider)
	start(t, mem, otelmetric.WithName("mem"), to, otelmetric.WithProducer(producer))
	hook, err := otelmetric.RegisterHook(used(hooks.Usage{Events: 1, Time: 1}), "hook", to)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, hook)
	rss, err := otelmetric.RegisterRSS([]counter.Source{cache(t)}, to)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, rss)
	var list []string
	for _, l := range collect(t, reader) {
		f := strings.Fields(l)
		list = append(list, f[0]+" "+strings.TrimPrefix(f[2], "Exponential")+" "+f[1])
		for _, a := range regexp.MustCompile(`[{,]([\w.]+)=`).FindAllStringSubmatch(f[3], -1) {
			list = append(list, a[1]+" attribute")
		}
	}
	fields.Compare(t, "testdata/fields.txt", list)
}
