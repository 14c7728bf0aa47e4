package debugpage

import (
	"context"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/exporters/internal/page"
)

// TestManyAnswers: more different questions at once than answers are kept: each has its own answer, and no more are kept.
func TestManyAnswers(t *testing.T) {
	a := answers{keep: true}
	const questions = 3 * maxAnswers
	var all sync.WaitGroup
	for round := range 2 {
		for n := range questions {
			all.Go(func() {
				got, err := a.get(t.Context(), page.Query{What: "blocks", N: n, Steps: round}, func(context.Context) (any, error) {
					return n, nil
				})
				want, _ := compressed(n)
				if err != nil || string(got.body) != string(want) {
					t.Errorf("answer %d: %v, %q", n, err, got.body)
				}
			})
		}
	}
	all.Wait()
	if len(a.kept) != maxAnswers {
		t.Errorf("%d answers are kept, want %d", len(a.kept), maxAnswers)
	}
}
