package debugpage

import (
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/internal/plant"
)

// BenchmarkAnswers measures what answers cost with 100,000 blocks of 1,000 sites, and a million events, and how many bytes they send.
func BenchmarkAnswers(b *testing.B) {
	p, err := plant.New(1 << 20)
	if err == nil {
		err = p.Scale(100_000, 1000, 1_000_000)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := p.Close(); err != nil {
			b.Error(err)
		}
	})
	l := newLive(Options{Profile: p.Profile, Ring: p.Ring}, []*alloctrace.Proxy{p.Proxy})
	for _, q := range []page.Query{
		{What: page.GetPage}, {What: page.GetSnapshot, AtUS: page.Latest}, {What: page.GetBlocks, N: 100_000}, {What: page.GetMap},
		{What: page.GetEvents, N: 1_000_000}, {What: page.GetBetween, ToUS: page.Latest}, {What: page.GetLifetimes}, {What: page.GetLeaks}, {What: page.GetTables},
	} {
		b.Run(q.What, func(b *testing.B) {
			var packed []byte
			for b.Loop() {
				v, err := l.Answer(b.Context(), q)
				if err == nil {
					packed, err = compressed(v)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			plain, err := unpacked(packed)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(packed)), "B-sent")
			b.ReportMetric(float64(len(plain)), "B-plain")
		})
	}
	b.Run("tick", func(b *testing.B) {
		was := l.Tick()
		for b.Loop() {
			is := l.Tick()
			encoded(change(was, is))
			was = is
		}
	})
	b.Run("records", func(b *testing.B) {
		for b.Loop() {
			p.Ring.Records()
		}
	})
}
