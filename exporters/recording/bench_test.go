package recording_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints what a Recorder costs a pair of Allocate and Free on top of a counted one, and how many bytes an
// event takes, a row a measure.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		fmt.Println()
		const queue = 1 << 20 // none of the events may be dropped, which costs less
		var recorders []*recording.Recorder
		var files []*counted
		var before []hooks.Usage
		pair := func(name string, o recording.Options) measure.Subject {
			f := new(counted)
			r, err := recording.New(f, o)
			if err != nil {
				b.Fatal(err)
			}
			recorders, files = append(recorders, r), append(files, f)
			mem := alloctrace.Wrap(new(blockalloc.Pool), alloctrace.WithHooks(r))
			var all sync.WaitGroup
			for range runtime.GOMAXPROCS(0) { // the queues of all processors are in memory then
				all.Go(func() { measure.Pairs(name, 0, mem).Run(queue) })
			}
			all.Wait()
			if err := r.Flush(); err != nil {
				b.Fatal(err)
			}
			before = append(before, r.Usage())
			return measure.Pairs(name, 0, mem)
		}
		times := measure.Run(101, []measure.Subject{
			measure.Atomic(),
			measure.Pairs("counted", 0, alloctrace.Wrap(new(blockalloc.Pool))),
			pair("recorded", recording.Options{Queue: queue}),
			pair("recorded_stackless", recording.Options{Queue: queue, NoStacks: true}),
		})
		for i, name := range []string{"recorded", "recorded_stackless"} {
			measure.Row(os.Stdout, b, name+"_over_counted", times.Over(name, "counted", "atomic"), "A", 45)
			if err := recorders[i].Close(); err != nil {
				b.Fatal(err)
			}
			u := recorders[i].Usage()
			measure.Row(os.Stdout, b, name+"_event_bytes", float64(files[i].n)/float64(u.Sampled), "B", 8)
			measure.Row(os.Stdout, b, name+"_dropped", float64(u.Dropped-before[i].Dropped)/float64(u.Events-before[i].Events), "of all", 0)
		}
	}
}

// BenchmarkTableOfSizes prints how many bytes an event of a program takes that has so many blocks live, frees them in any order, and
// asks for sizes from 1 to 20,000 from 20 places, and how long it takes to read it.
func BenchmarkTableOfSizes(b *testing.B) {
	for b.Loop() {
		fmt.Println()
		for _, live := range []int{100, 10_000, 100_000} {
			var file bytes.Buffer
			rec, err := recording.New(&file, recording.Options{})
			if err != nil {
				b.Fatal(err)
			}
			slab, err := blockalloc.NewSlab(&blockalloc.Pool{}, 64<<10)
			if err != nil {
				b.Fatal(err)
			}
			p := alloctrace.Wrap(slab, alloctrace.WithHooks(rec))
			rng := rand.New(rand.NewPCG(1, uint64(live)))
			var blocks []blockalloc.Block
			for i := range 4*live + 1_000_000 {
				if len(blocks) < live || rng.IntN(2) == 0 && len(blocks) < live+live/10 {
					block, err := from(rng.IntN(20), p, blockalloc.Layout{Size: uintptr(1 + rng.IntN(20_000)), Align: 8})
					if err != nil {
						b.Fatal(err)
					}
					blocks = append(blocks, block)
				} else {
					i := rng.IntN(len(blocks))
					if err := p.Free(blocks[i]); err != nil {
						b.Fatal(err)
					}
					blocks[i] = blocks[len(blocks)-1]
					blocks = blocks[:len(blocks)-1]
				}
				if i%10_000 == 0 {
					_ = rec.Flush()
				}
			}
			for _, block := range blocks {
				if err := p.Free(block); err != nil {
					b.Fatal(err)
				}
			}
			if err := rec.Close(); err != nil {
				b.Fatal(err)
			}
			u, size := rec.Usage(), file.Len()
			began := time.Now()
			r, err := recording.NewReader(&file)
			if err != nil {
				b.Fatal(err)
			}
			for _, err := range r.Events() {
				if err != nil {
					b.Fatal(err)
				}
			}
			read := time.Since(began)
			r.Close()
			measure.Row(os.Stdout, b, fmt.Sprintf("recorded_%d_live_event_bytes", live), float64(size)/float64(u.Sampled), "B", 8)
			measure.Row(os.Stdout, b, fmt.Sprintf("recorded_%d_live_event_read", live), float64(read)/float64(u.Sampled), "ns", measure.NoBound)
			measure.Row(os.Stdout, b, fmt.Sprintf("recorded_%d_live_dropped", live), float64(u.Dropped)/float64(u.Events), "of all", measure.NoBound)
		}
	}
}

// BenchmarkTableOfMany prints what a file of a hundred million events takes, which one goroutine makes as fast as it can: 1,000 blocks of 1 to
// 20,000 bytes are live, from 20 places, and one of them, by chance, is freed before each one that is allocated. The file is read to its end.
func BenchmarkTableOfMany(b *testing.B) {
	const events, live = 100_000_000, 1000
	for b.Loop() {
		fmt.Println()
		path := filepath.Join(b.TempDir(), "many")
		rec, err := recording.Create(path, recording.Options{MaxBytes: 4 << 30}) // one file
		if err != nil {
			b.Fatal(err)
		}
		slab, err := blockalloc.NewSlab(&blockalloc.Pool{}, 64<<10)
		if err != nil {
			b.Fatal(err)
		}
		p := alloctrace.Wrap(slab, alloctrace.WithHooks(rec))
		rng := rand.New(rand.NewPCG(1, 2))
		blocks := make([]blockalloc.Block, live)
		began := time.Now()
		for n := 0; n < events; n++ {
			i := rng.IntN(live)
			if !blocks[i].IsZero() {
				if err := p.Free(blocks[i]); err != nil {
					b.Fatal(err)
				}
				n++
			}
			if blocks[i], err = from(rng.IntN(20), p, blockalloc.Layout{Size: uintptr(1 + rng.IntN(20_000)), Align: 8}); err != nil {
				b.Fatal(err)
			}
		}
		if err := rec.Close(); err != nil {
			b.Fatal(err)
		}
		made, usage := time.Since(began), rec.Usage()
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		began = time.Now()
		read, dropped := count(b, path)
		if read != usage.Sampled || read+dropped != usage.Events || usage.Events < events {
			b.Errorf("%d events are in the file and %d are said to be dropped, of %+v", read, dropped, usage)
		}
		measure.Row(os.Stdout, b, "recorded_1e8_seconds", made.Seconds(), "s", measure.NoBound)
		measure.Row(os.Stdout, b, "recorded_1e8_file", float64(info.Size())/1e6, "MB", measure.NoBound)
		measure.Row(os.Stdout, b, "recorded_1e8_event_bytes", float64(info.Size())/float64(read), "B", 8)
		measure.Row(os.Stdout, b, "recorded_1e8_dropped", float64(dropped)/float64(usage.Events), "of all", measure.NoBound)
		measure.Row(os.Stdout, b, "recorded_1e8_read", float64(time.Since(began))/float64(read), "ns", measure.NoBound)
	}
}

// count returns how many events a file has, and how many it says were dropped.
func count(b *testing.B, path string) (events, dropped int64) {
	r, err := recording.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for e, err := range r.Events() {
		if err != nil {
			b.Fatal(err)
		}
		if e.Dropped > 0 {
			dropped += e.Dropped
		} else {
			events++
		}
	}
	return events, dropped
}

// from allocates by a stack of its own for each depth.
func from(depth int, p *alloctrace.Proxy, l blockalloc.Layout) (blockalloc.Block, error) {
	if depth > 0 {
		return from(depth-1, p, l)
	}
	return p.Allocate(l)
}

type counted struct{ n int64 }

func (c *counted) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }
