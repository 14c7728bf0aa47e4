package heapprofile

import (
	"context"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
)

type requestKey struct{}

// TestSampleSite: a Sample says whose it is, and by which calls, as the Site of a report does.
func TestSampleSite(t *testing.T) {
	for name, o := range map[string]Options{
		"children": {Rate: 1, Peak: true},
		"owners": {Rate: 1, Peak: true, Owner: func(ctx context.Context) string {
			name, _ := ctx.Value(requestKey{}).(string)
			return name
		}},
		"skipped": {Rate: 1, Peak: true, Skip: []string{"github.com/alloctrace/alloctrace/internal/adapter.v2/..."}},
	} {
		p := New(o)
		mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
		for _, of := range []*alloctrace.Proxy{mem, mem.Child("a"), mem.Child("b").WithContext(context.WithValue(t.Context(), requestKey{}, "r"))} {
			for _, place := range []func(testing.TB, *alloctrace.Proxy){freeAtEnd, freeAtEndElsewhere} {
				place(t, of)
			}
		}
		report := p.Report()
		for what, samples := range map[string][]Sample{"now": p.Samples(), "some": p.SamplesOf(nil), "peak": p.Peak().Get().Samples} {
			for _, s := range samples {
				i := slices.IndexFunc(report.Sites, func(site Site) bool {
					return site.Owner == s.Owner() && slices.Equal(site.Stack, s.Frames())
				})
				if i < 0 || report.Sites[i].Bytes != s.LiveBytes {
					t.Errorf("%s, %s: no site of %d bytes is %q %v", name, what, s.LiveBytes, s.Owner(), s.Frames())
				}
			}
			if len(samples) != 6 {
				t.Errorf("%s, %s: %d samples", name, what, len(samples))
			}
		}
	}
	if s := (Sample{}); s.Frames() != nil || s.Owner() != "" {
		t.Errorf("a sample of nobody has %v", s.Frames())
	}
}

//go:noinline
func freeAtEnd(t testing.TB, p *alloctrace.Proxy) {
	b := placeA(t, p, 64)
	t.Cleanup(func() {
		if err := p.Free(b); err != nil {
			t.Error(err)
		}
	})
}

//go:noinline
func freeAtEndElsewhere(t testing.TB, p *alloctrace.Proxy) {
	b := placeB(t, p, 64)
	t.Cleanup(func() {
		if err := p.Free(b); err != nil {
			t.Error(err)
		}
	})
}

// TestBlockWeight: a Block stands for as many as its Profile takes it for.
func TestBlockWeight(t *testing.T) {
	p := New(Options{Rate: 256})
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
