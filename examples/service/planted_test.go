package main

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
)

// A planted error is one of memory that a request makes. Each allocates one block of a size of its own.
type planted struct {
	name    string
	kind    debug.Kind
	isFreed bool // the block was when the error is found
	request func(g *guard.Allocator, size uintptr) error
}

//go:noinline
func allocates(g *guard.Allocator, size uintptr) blockalloc.Block {
	b, err := g.Allocate(blockalloc.Layout{Size: size, Align: plantedAlign})
	if err != nil {
		panic(err)
	}
	return b
}

//go:noinline
func frees(g *guard.Allocator, b blockalloc.Block) { _ = g.Free(b) }

//go:noinline
func errs(f func()) { f() }

// at returns a pointer into a block, or to what is around it.
func at(b blockalloc.Block, offset int) *byte { return (*byte)(unsafe.Add(b.Pointer(), offset)) }

// accessFreed makes a request that accesses a block after it was freed.
func accessFreed(access func(b blockalloc.Block)) func(*guard.Allocator, uintptr) error {
	return func(g *guard.Allocator, size uintptr) error {
		b := allocates(g, size)
		frees(g, b)
		return g.Catch(func() { errs(func() { access(b) }) })
	}
}

// accessLive makes a request that accesses what is around a live block, and frees it.
func accessLive(access func(b blockalloc.Block)) func(*guard.Allocator, uintptr) error {
	return func(g *guard.Allocator, size uintptr) error {
		b := allocates(g, size)
		err := g.Catch(func() { errs(func() { access(b) }) })
		frees(g, b)
		return err
	}
}

// misuse makes a request that gives something wrong back.
func misuse(frees bool, use func(g *guard.Allocator, b blockalloc.Block) error) func(*guard.Allocator, uintptr) error {
	return func(g *guard.Allocator, size uintptr) (err error) {
		b := allocates(g, size)
		if frees {
			freesFirst(g, b)
		} else {
			defer g.Free(b)
		}
		errs(func() { err = use(g, b) })
		return err
	}
}

func freesFirst(g *guard.Allocator, b blockalloc.Block) { frees(g, b) }

func raw(p *byte, size uintptr) blockalloc.Block {
	b, err := blockalloc.FromRaw(unsafe.Pointer(p), blockalloc.Layout{Size: size, Align: plantedAlign})
	if err != nil {
		panic(err)
	}
	return b
}

//go:noinline
func reads(p *byte) byte { return *p }

var plantedErrors = []planted{
	{"a read of the first byte after the free", debug.UseAfterFree, true, accessFreed(func(b blockalloc.Block) { reads(at(b, 0)) })},
	{"a read of the middle after the free", debug.UseAfterFree, true, accessFreed(func(b blockalloc.Block) { reads(at(b, 5000)) })},
	{"a read of the last byte after the free", debug.UseAfterFree, true, accessFreed(func(b blockalloc.Block) { reads(at(b, int(b.Size())-1)) })},
	{"a write of the first byte after the free", debug.UseAfterFree, true, accessFreed(func(b blockalloc.Block) { *at(b, 0) = 1 })},
	{"a write of the middle after the free", debug.UseAfterFree, true, accessFreed(func(b blockalloc.Block) { *at(b, 5000) = 1 })},
	{"a copy into it after the free", debug.UseAfterFree, true, accessFreed(func(b blockalloc.Block) { copy(b.Bytes()[100:], "too late") })},
	{"a clear after the free", debug.UseAfterFree, true, accessFreed(func(b blockalloc.Block) { clear(b.Bytes()) })},
	{"a write of the byte after the end", debug.Overrun, false, accessLive(func(b blockalloc.Block) { *at(b, int(b.Size())) = 1 })},
	{"a write of a word after the end", debug.Overrun, false, accessLive(func(b blockalloc.Block) { copy(unsafe.Slice(at(b, int(b.Size())), 8), "12345678") })},
	{"a copy of a page too much", debug.Overrun, false, accessLive(func(b blockalloc.Block) {
		copy(make([]byte, 1<<17), unsafe.Slice(at(b, 0), int(b.Size())+os.Getpagesize()))
	})},
	{"a read of a page too much", debug.Overrun, false, accessLive(func(b blockalloc.Block) { reads(at(b, int(b.Size())+os.Getpagesize())) })},
	{"a write of the byte before the start", debug.Underrun, false, accessLive(func(b blockalloc.Block) { *at(b, -1) = 1 })},
	{"a write of a word before the start", debug.Underrun, false, accessLive(func(b blockalloc.Block) { copy(unsafe.Slice(at(b, -8), 8), "12345678") })},
	{"a double free", debug.DoubleFree, true, misuse(true, func(g *guard.Allocator, b blockalloc.Block) error { return g.Free(b) })},
	{"a reallocation after the free", debug.DoubleFree, true, misuse(true, func(g *guard.Allocator, b blockalloc.Block) error {
		_, err := g.Reallocate(b, 1)
		return err
	})},
	{"a resize after the free", debug.DoubleFree, true, misuse(true, func(g *guard.Allocator, b blockalloc.Block) error {
		_, err := g.Resize(b, b.Size()-1)
		return err
	})},
	{"a free of what was reallocated", debug.DoubleFree, true, func(g *guard.Allocator, size uintptr) (err error) {
		b := allocates(g, size)
		var n blockalloc.Block
		reallocates := func() { n, _ = g.Reallocate(b, size+2*plantedSizes) }
		reallocates()
		errs(func() { err = g.Free(b) })
		_ = g.Free(n)
		return err
	}},
	{"a free of a part", debug.Interior, false, misuse(false, func(g *guard.Allocator, b blockalloc.Block) error { return g.Free(raw(at(b, 64), 32)) })},
	{"a free with a wrong size", debug.WrongSize, false, misuse(false, func(g *guard.Allocator, b blockalloc.Block) error {
		return g.Free(raw(at(b, 0), b.Size()+2))
	})},
	{"a free of what is before the block", debug.Foreign, false, misuse(false, func(g *guard.Allocator, b blockalloc.Block) error {
		return g.Free(raw(at(b, -2), b.Size()))
	})},
}

const (
	plantedAlign = 2 // nothing else has that
	plantedSize  = 10_000
	plantedSizes = 64 // there are fewer errors
)

// A victim gives memory of its own to blocks with errors that nobody guards, so that these hurt nobody.
type victim struct {
	blockalloc.Allocator
	memory blockalloc.Block
}

func (v *victim) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if l.Align != plantedAlign {
		return v.Allocator.Allocate(l)
	}
	return raw(at(v.memory, 1<<17), l.Size), nil
}

func (v *victim) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if !v.has(b) {
		return v.Allocator.Reallocate(b, size)
	}
	return raw(at(b, 0), size), nil
}

func (v *victim) Free(b blockalloc.Block) error {
	if !v.has(b) {
		return v.Allocator.Free(b)
	}
	return nil
}

func (v *victim) Find(p unsafe.Pointer) (blockalloc.Block, bool) {
	return v.Allocator.(blockalloc.Finder).Find(p)
}

func (v *victim) has(b blockalloc.Block) bool { return b.Addr()-v.memory.Addr() < v.memory.Size() }

// TestPlantedErrors: requests to a service under load make twenty errors of memory, each many times. With guards at one block in
// 64 KiB, each is found as often as chance says, and each report has the stacks of who allocated, who freed and what was wrong.
func TestPlantedErrors(t *testing.T) {
	const rate, clients = 64 << 10, 4
	each := 200
	if requireAll {
		each = 2000
	}
	var mu sync.Mutex
	found := make([]int, len(plantedErrors))
	report := func(r *debug.Report) {
		mu.Lock()
		defer mu.Unlock()
		block := r.Block.Layout
		if r.Kind == debug.Foreign { // of which there is no block
			block = r.Given.Layout
		}
		i := (block.Size - plantedSize) / 2
		if block.Size < plantedSize || i >= uintptr(len(plantedErrors)) || block.Align != plantedAlign {
			t.Errorf("nobody has planted this:\n%v", r)
			return
		}
		found[i]++
		p := plantedErrors[i]
		now := has(r.Now, "errs") || !r.Fault && has(r.Now, "frees") // where the damage around a block is found
		if p.kind != r.Kind || r.Kind != debug.Foreign && !has(r.Allocated, "allocates") || (len(r.Freed) > 0) != p.isFreed || p.isFreed && !has(r.Freed, "frees") && !strings.Contains(p.name, "reallocated") || !now {
			t.Errorf("%s:\n%v", p.name, r)
		}
	}
	var system blockalloc.System
	memory, err := system.Allocate(blockalloc.Layout{Size: 1 << 18, Align: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	g := guard.New(&victim{blockalloc.Default(), memory}, guard.Options{Rate: rate, OnReport: report})
	mem := alloctrace.Wrap(g)
	s := &service{mem: mem, cache: mem.Child("cache")}
	mux := http.NewServeMux()
	mux.Handle("/", s.handler())
	mux.HandleFunc("POST /error/{n}", func(w http.ResponseWriter, r *http.Request) {
		var i uintptr
		if _, err := fmt.Sscan(r.PathValue("n"), &i); err != nil || i >= uintptr(len(plantedErrors)) {
			http.Error(w, "no such error", http.StatusNotFound)
			return
		}
		_ = plantedErrors[i].request(g, plantedSize+2*i) // of a block that nobody guards there may be no error
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				load(t, server.URL, time.Millisecond)
			}
		}
	})
	var bad sync.WaitGroup
	for c := range clients {
		bad.Go(func() {
			for n := c; n < each*len(plantedErrors); n += clients {
				if a := send(t, "POST", fmt.Sprintf("%s/error/%d", server.URL, n%len(plantedErrors)), ""); a.status != http.StatusOK {
					t.Errorf("%s: %d, %s", plantedErrors[n%len(plantedErrors)].name, a.status, a.body)
					return
				}
			}
		})
	}
	bad.Wait()
	close(done)
	wg.Wait()
	for i, p := range plantedErrors {
		chance := -math.Expm1(-float64(plantedSize+2*i) / rate)
		want, deviation := float64(each)*chance, math.Sqrt(float64(each)*chance*(1-chance))
		off := (float64(found[i]) - want) / deviation
		if math.Abs(off) > 6 { // which chance does once in 100,000 runs
			t.Errorf("%s was found %d times of %d, want %.0f ± %.0f", p.name, found[i], each, want, deviation)
		}
		t.Logf("%s: found %d times of %d, expected %.0f ± %.0f: off by %.1f", p.name, found[i], each, want, deviation, off)
	}
	if stats := g.Stats(); stats.Full != 0 {
		t.Errorf("some blocks had no slot: %+v", stats)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if err := system.Free(memory); err != nil {
		t.Error(err)
	}
}

// has reports whether a function of this package is in a stack.
func has(s debug.Stack, function string) bool {
	for _, f := range s.Frames() {
		if strings.HasSuffix(f.Function, "main."+function) || strings.HasSuffix(f.Function, "service."+function) {
			return true
		}
	}
	return false
}
