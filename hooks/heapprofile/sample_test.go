package heapprofile_test

import (
	"context"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

type requestKey struct{}

// TestSampleSite: a Sample says whose it is, and by which calls, as the Site of a report does.
func TestSampleSite(t *testing.T) {
	for name, o := range map[string]heapprofile.Options{
		"children": {Rate: 1, Peak: true},
		"owners": {Rate: 1, Peak: true, Owner: func(ctx context.Context) string {
			name, _ := ctx.Value(requestKey{}).(string)
			return name
		}},
		"skipped": {Rate: 1, Peak: true, Skip: []string{"github.com/alloctrace/alloctrace/internal/adapter.v2/..."}},
	} {
		p := heapprofile.New(o)
		mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
		for _, of := range []*alloctrace.Proxy{mem, mem.Child("a"), mem.Child("b").WithContext(context.WithValue(t.Context(), requestKey{}, "r"))} {
			for _, place := range []func(testing.TB, *alloctrace.Proxy){freeAtEnd, freeAtEndElsewhere} {
				place(t, of)
			}
		}
		report := p.Report()
		for what, samples := range map[string][]heapprofile.Sample{"now": p.Samples(), "some": p.SamplesOf(nil), "peak": p.Peak().Get().Samples} {
			bytes := make([]int64, len(report.Sites))
			for _, s := range samples { // of which several can be of one site
				i := slices.IndexFunc(report.Sites, func(site heapprofile.Site) bool {
					return site.Owner == s.Owner() && slices.Equal(site.Stack, s.Frames())
				})
				if i < 0 {
					t.Fatalf("%s, %s: no site is %q %v", name, what, s.Owner(), s.Frames())
				}
				bytes[i] += s.LiveBytes
			}
			for i, site := range report.Sites {
				if bytes[i] != site.Bytes {
					t.Errorf("%s, %s: the samples have %d bytes of %v", name, what, bytes[i], site)
				}
			}
			if len(samples) != 6 {
				t.Errorf("%s, %s: %d samples", name, what, len(samples))
			}
		}
	}
	if s := (heapprofile.Sample{}); s.Frames() != nil || s.Owner() != "" {
		t.Errorf("a sample of nobody has %v", s.Frames())
	}
}

//go:noinline
func freeAtEnd(t testing.TB, p *alloctrace.Proxy) {
	b, err := p.Allocate(blockalloc.Layout{Size: 64, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Free(b); err != nil {
			t.Error(err)
		}
	})
}

//go:noinline
func freeAtEndElsewhere(t testing.TB, p *alloctrace.Proxy) { freeAtEnd(t, p) }

// TestBlockWeight: a Block stands for as many as its Profile takes it for.
func TestBlockWeight(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 256})
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
	for range 200 {
		freeAtEnd(t, mem)
	}
	var sum float64
	for _, b := range p.Blocks() {
		sum += b.Weight * float64(b.Size)
	}
	if report := p.Report(); report.Bytes == 0 || int64(sum+0.5) != report.Bytes {
		t.Errorf("the blocks stand for %.1f bytes, and the report says %d", sum, report.Bytes)
	}
}
