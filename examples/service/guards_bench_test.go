package main

import (
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
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
// with counters alone: of many short rounds, in each of which all have requests in turns, the median of the rounds' ratios. The rows of
// plain_again compare the same with itself: what these differ from 1 by is noise.
func BenchmarkTableOfGuards(b *testing.B) {
	on := func(mem *alloctrace.Proxy) *service { return &service{mem: mem, cache: mem.Child("cache")} }
	all, err := production.Wrap(new(blockalloc.Pool), production.Options{BlackBox: filepath.Join(b.TempDir(), "box")})
	if err != nil {
		b.Fatal(err)
	}
	defer all.Close()
	plain := &variant{name: "plain", handler: on(alloctrace.Wrap(new(blockalloc.Pool))).handler()}
	variants := []*variant{
		plain,
		{name: "plain_again", handler: on(alloctrace.Wrap(new(blockalloc.Pool))).handler()},
		{name: "guards", handler: on(alloctrace.Wrap(guard.New(new(blockalloc.Pool), guard.Options{MaxDrawn: 8 << 10}))).handler()},
		{name: "production", handler: on(all.Proxy).handler()},
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
		}{{"short", 600, 101, 200}, {"long", 12000, 51, 100}} {
			text := strings.Repeat("the quick brown fox\njumps over\nthe lazy dog\n", length.lines/3)
			p50, p99 := make(map[*variant][]float64), make(map[*variant][]float64) // of rounds
			for range length.rounds {
				takeTurns(b, variants, length.requests, text)
				for _, v := range variants {
					p50[v] = append(p50[v], percentile(v.took, 0.5)/percentile(plain.took, 0.5))
					p99[v] = append(p99[v], percentile(v.took, 0.99)/percentile(plain.took, 0.99))
				}
			}
			for _, v := range variants[1:] {
				name := "service_" + length.name + "_" + v.name
				measure.Row(os.Stdout, b, name+"_p50", median(p50[v]), "x plain", measure.NoBound)
				measure.Row(os.Stdout, b, name+"_p99", median(p99[v]), "x plain", measure.NoBound)
			}
		}
	}
}

// takeTurns sends so many requests to each variant, ten a turn, in any order: the machine is the same for all.
func takeTurns(b *testing.B, variants []*variant, requests int, text string) {
	for _, v := range variants {
		v.took = make([]time.Duration, 0, requests)
	}
	for range requests / 10 {
		for _, i := range rand.Perm(len(variants)) {
			v := variants[i]
			for range 10 {
				v.took = append(v.took, post(b, v.url+"/sort", text))
			}
		}
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
