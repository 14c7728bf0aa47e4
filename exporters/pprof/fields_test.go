package pprof

import (
	"bytes"
	"context"
	"flag"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/fields"
)

var _ = flag.Bool("update", false, "write the golden files of testdata anew")

// TestFields: the sample types of a profile with their units, and the keys of the labels that the program did not set.
func TestFields(t *testing.T) {
	hook := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(hook))
	pprof.Do(t.Context(), pprof.Labels("own", "1"), func(ctx context.Context) { allocate(t, mem.Child("child").WithContext(ctx), 64) })
	var file bytes.Buffer
	if err := WriteCombined(&file, hook); err != nil {
		t.Fatal(err)
	}
	p := parse(t, file.Bytes())
	var list []string
	for _, sample := range p.SampleType {
		list = append(list, sample.Type+" "+sample.Unit)
	}
	for _, s := range p.Sample {
		for key := range s.Label {
			if key != "own" {
				list = append(list, key+" label")
			}
		}
	}
	for _, sample := range buildPinned(heapprofile.PinnedReport{}, time.Now()).SampleType {
		list = append(list, sample.Type+" "+sample.Unit)
	}
	fields.Compare(t, "testdata/fields.txt", list)
}
