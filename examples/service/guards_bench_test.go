package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/hooks/production"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTableOfGuards prints how much longer requests take with sampled guards, and with all that production.Wrap leaves on, than
// with counters alone. In each of many rounds all variants have requests in turns. A row is of the geometric mean of the rounds' ratios; the row
// below it is its standard error. The rows of plain_again compare the same with itself.
//
// A request in which a block was guarded takes longer. What that makes of the 99th percentile is seen most exactly within one variant: the rows of
// by_guarded are that of all requests, in times of that of those without a guarded block.
func BenchmarkTableOfGuards(b *testing.B) {
	on := func(mem *alloctrace.Proxy) *service { return &service{mem: mem, cache: mem.Child("cache")} }
	all, err := production.Wrap(new(blockalloc.Pool), production.Options{BlackBox: filepath.Join(b.TempDir(), "box")})
	if err != nil {
		b.Fatal(err)
	}
	defer all.Close()
	guards := guard.New(new(blockalloc.Pool), guard.Options{MaxDrawn: 1 << 10}) // as production.Wrap's
	plain := &variant{name: "plain", handler: on(alloctrace.Wrap(new(blockalloc.Pool))).handler()}
	variants := []*variant{
		plain,
		{name: "plain_again", handler: on(alloctrace.Wrap(new(blockalloc.Pool))).handler()},
		{name: "guards", handler: on(alloctrace.Wrap(guards)).handler(), guards: guards},
		{name: "production", handler: on(all.Proxy).handler(), guards: all.Guard},
	}
	for _, v := range variants {
		server := httptest.NewServer(v.handler)
		defer server.Close()
		v.url = server.URL
	}
	for b.Loop() {
		fmt.Println()
		for _, length := range []struct {
			name                    string
			lines, rounds, requests int
		}{{"short", 600, 50, 2000}, {"long", 12000, 25, 1000}} {
			text := strings.Repeat("the quick brown fox\njumps over\nthe lazy dog\n", length.lines/3)
			p50, p99, byGuarded := make(map[*variant][]float64), make(map[*variant][]float64), make(map[*variant][]float64) // logarithms of the rounds' ratios
			for range length.rounds {
				takeTurns(b, variants, length.requests, text)
				for _, v := range variants {
					p50[v] = append(p50[v], math.Log(percentile(v.took, 0.5)/percentile(plain.took, 0.5)))
					p99[v] = append(p99[v], math.Log(percentile(v.took, 0.99)/percentile(plain.took, 0.99)))
					byGuarded[v] = append(byGuarded[v], math.Log(percentile(v.took, 0.99)/percentile(v.unguarded, 0.99)))
				}
			}
			for _, v := range variants[1:] {
				name := "service_" + length.name + "_" + v.name
				row := func(name string, logs []float64) {
					ratio, deviation := mean(logs)
					measure.Row(os.Stdout, b, name, 100*(ratio-1), "% more", measure.NoBound)
					measure.Row(os.Stdout, b, name+"_error", 100*deviation, "%", measure.NoBound)
				}
				row(name+"_p50", p50[v])
				row(name+"_p99", p99[v])
				if v.guards != nil {
					row(name+"_p99_by_guarded", byGuarded[v])
				}
			}
		}
	}
}

// takeTurns sends so many requests to each variant, ten a turn, in any order: the machine is the same for all.
func takeTurns(b *testing.B, variants []*variant, requests int, text string) {
	for _, v := range variants {
		v.took, v.unguarded = make([]time.Duration, 0, requests), make([]time.Duration, 0, requests)
	}
	for range requests / 10 {
		for _, i := range rand.Perm(len(variants)) {
			v := variants[i]
			for range 10 {
				before := v.guarded()
				took := post(b, v.url+"/sort", text)
				v.took = append(v.took, took)
				if v.guarded() == before {
					v.unguarded = append(v.unguarded, took)
				}
			}
		}
	}
}

// guarded returns how many blocks were guarded so far.
func (v *variant) guarded() int64 {
	if v.guards == nil {
		return 0
	}
	return v.guards.Stats().Guarded
}

// mean returns the geometric mean of ratios whose logarithms these are, and its standard error.
func mean(logs []float64) (ratio, deviation float64) {
	sum, squares := 0.0, 0.0
	for _, l := range logs {
		sum += l
	}
	n := float64(len(logs))
	for _, l := range logs {
		squares += (l - sum/n) * (l - sum/n)
	}
	ratio = math.Exp(sum / n)
	return ratio, ratio * math.Sqrt(squares/(n-1)/n)
}
