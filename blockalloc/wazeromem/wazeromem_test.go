package wazeromem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/wazeromem"
)

// inPlace is whether memory of Default never moves here.
var inPlace = func() bool { _, ok := wazeromem.Default().(*blockalloc.Reserved); return ok }()

// memories are ways to have memory: by the package's own allocator, and by one that moves it.
var memories = map[string]func(t *testing.T, opts ...alloctest.Option) *alloctrace.Proxy{
	"default": func(t *testing.T, opts ...alloctest.Option) *alloctrace.Proxy {
		return alloctest.New(t, append(opts, alloctest.WithAllocator(wazeromem.Default()))...)
	},
	"heap": func(t *testing.T, opts ...alloctest.Option) *alloctrace.Proxy { return alloctest.New(t, opts...) },
}

func each(t *testing.T, test func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, stays bool)) {
	for engine, config := range engines {
		for memory, newMemory := range memories {
			t.Run(engine+", "+memory, func(t *testing.T) { test(t, config(), newMemory(t), memory == "default" && inPlace) })
		}
	}
}

// address returns where the guest's memory begins.
func address(t *testing.T, g *wazeromem.Guest) (p *byte) {
	t.Helper()
	err := g.Do(t.Context(), func(module api.Module) error {
		b, ok := module.Memory().Read(0, 1)
		if !ok {
			return errors.New("no byte at address 0")
		}
		p = unsafe.SliceData(b)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return p
}

// TestGrows: a guest grows page by page. All of its pages are there, zeroed and counted, and memory of Default
// stays where it is. A maximum is none, or as declared.
func TestGrows(t *testing.T) {
	each(t, func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, stays bool) {
		r := newRuntime(t, config, nil)
		for _, max := range []uint32{0, 9} {
			g := instantiate(t, wazeromem.New(mem, wazeromem.Options{}), "tenant", r, compile(t, r, guest{min: 1, max: max}))
			first := address(t, g)
			call(t, g, "store", 1, 1)
			for pages := 1; pages < 9; pages++ {
				if got := call(t, g, "grow", 1); int(got) != pages {
					t.Fatalf("memory.grow from %d pages returned %d", pages, got)
				}
				err := g.Do(t.Context(), func(module api.Module) error {
					added, _ := module.Memory().Read(uint32(pages)*page, page)
					if bytes.Count(added, []byte{0}) != page {
						t.Errorf("page %d is not zeroed", pages)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				call(t, g, "store", uint64(pages)*page+1, uint64(pages)+1)
				if s := g.Stats(); s.LiveBytes != int64(pages+1)*page || s.LiveBlocks != 1 {
					t.Errorf("with %d pages: %v", pages+1, s)
				}
			}
			for pages := range uint64(9) {
				if got := call(t, g, "load", pages*page+1); got != int32(pages)+1 {
					t.Errorf("page %d has %d", pages, got)
				}
			}
			if stays && address(t, g) != first {
				t.Error("the memory has moved")
			}
			if max != 0 && call(t, g, "grow", 1) != -1 {
				t.Error("the guest has grown beyond its maximum")
			}
			want := errors.New("f's own")
			if err := g.Do(t.Context(), func(api.Module) error { return want }); err != want {
				t.Errorf("Do returns %v, want f's error itself", err)
			}
			closeGuest(t, g)
			closeGuest(t, g)
			if err := g.Do(t.Context(), nil); !errors.Is(err, blockalloc.ErrClosed) {
				t.Errorf("Do after Close: %v", err)
			}
		}
		alloctest.AssertLive(t, mem, 0, 0)
		if s := mem.ChildStats()["tenant"]; s.Allocations != 2 || s.Reallocations != 16 || s.Frees != 2 || len(mem.Children()) != 0 {
			t.Errorf("in the end the child has %v, and there are %d children", s, len(mem.Children()))
		}
	})
}

// TestNoMaximum: a guest that declares none may ask for 4 GiB, and is given what the Limit around all has.
func TestNoMaximum(t *testing.T) {
	mem := alloctest.New(t, alloctest.WithAllocator(blockalloc.NewLimit(wazeromem.Default(), 32<<20)))
	r := newRuntime(t, wazero.NewRuntimeConfig(), nil)
	g := instantiate(t, wazeromem.New(mem, wazeromem.Options{}), "", r, compile(t, r, guest{min: 1}))
	for _, pages := range []uint64{65535, 65536, 1 << 31, 512} { // 4 GiB, more than addresses, less than none, a page too much
		if got := call(t, g, "grow", pages); got != -1 {
			t.Errorf("memory.grow(%d) = %d", pages, got)
		}
	}
	if inPlace && call(t, g, "grow", 511) != 1 {
		t.Error("the guest cannot have all of its limit")
	}
	closeGuest(t, g)
}

// TestLargest: a guest has 4 GiB but for a page, of which it touches the ends. With all of its pages wazero's compiled code finds
// every address out of bounds, on memory of its own too.
func TestLargest(t *testing.T) {
	if !inPlace || bits.UintSize == 32 {
		t.Skip("there is no address space for it")
	}
	const last = 65535*page - 1
	mem := alloctest.New(t, alloctest.WithAllocator(wazeromem.Default()))
	r := newRuntime(t, wazero.NewRuntimeConfig(), nil)
	g := instantiate(t, wazeromem.New(mem, wazeromem.Options{}), "", r, compile(t, r, guest{min: 1}))
	if got := call(t, g, "grow", 65534); got == 1 {
		call(t, g, "store", last, 7)
		if call(t, g, "load", last) != 7 || mem.Stats().LiveBytes != last+1 {
			t.Errorf("the last byte is not as written, or %v", mem.Stats())
		}
	} else if s := mem.Stats(); got != -1 || s.FailedReallocations != 1 || s.LiveBytes != page { // a system that promises less
		t.Errorf("memory.grow = %d, with %v", got, s)
	}
	closeGuest(t, g)
}

// TestGreedy: a guest that grows until it is refused is told so, and has what its limit allows. Its neighbours go on meanwhile.
func TestGreedy(t *testing.T) {
	const limit = 40
	each(t, func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, stays bool) {
		var refused []string
		var mu sync.Mutex
		mem = alloctrace.Wrap(mem, alloctrace.WithHooks(alloctrace.HookFunc(func(ctx context.Context, e alloctrace.Event, err error) {
			if e.Kind == alloctrace.ReallocateFailed {
				mu.Lock()
				defer mu.Unlock()
				refused = append(refused, fmt.Sprint(ctx.Value(key{}), " ", blockalloc.ErrorType(err)))
			}
		})))
		r := newRuntime(t, config, nil)
		guests := wazeromem.New(mem, wazeromem.Options{Limit: limit * page})
		compiled := compile(t, r, guest{min: 1})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				g := instantiate(t, guests, "neighbour", r, compiled)
				defer closeGuest(t, g)
				for round := range uint64(30) {
					call(t, g, "store", round, uint64(i))
					if got := call(t, g, "load", round); int(got) != i {
						t.Errorf("neighbour %d reads %d", i, got)
					}
				}
			})
		}
		greedy := instantiate(t, guests, "greedy", r, compiled)
		ctx := context.WithValue(t.Context(), key{}, "request")
		err := greedy.Do(ctx, func(module api.Module) error {
			got, err := module.ExportedFunction("fill").Call(ctx)
			// A Limit counts the old and the new block of a memory that moves: 20 + 21 pages do not fit.
			if want := map[bool]uint64{true: limit - 1, false: limit/2 - 1}[stays]; err == nil && got[0] != want {
				t.Errorf("it has grown by %d pages, want %d", got[0], want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if got := call(t, greedy, "load", 7*page); got != 1 {
			t.Errorf("after the refusal its memory has %d", got)
		}
		wg.Wait()
		closeGuest(t, greedy)
		alloctest.AssertLive(t, mem, 0, 0)
		if s := mem.ChildStats(); s["greedy"].FailedReallocations != 1 || s["neighbour"].FailedReallocations != 0 || s["neighbour"].Frees != 4 {
			t.Errorf("the children have %v", s)
		}
		if len(refused) != 1 || refused[0] != "request limit" {
			t.Errorf("hooks observed the refusals %q", refused)
		}
	})
}

type key struct{}

// TestContextOfNestedUse: growth is in the context of the use that began last, and of the one around it after that.
func TestContextOfNestedUse(t *testing.T) {
	var seen []any
	mem := alloctest.New(t, alloctest.WithAllocator(wazeromem.Default()), alloctest.WithProxy(alloctrace.WithHooks(
		alloctrace.HookFunc(func(ctx context.Context, e alloctrace.Event, _ error) {
			if e.Kind != alloctrace.Reallocating {
				seen = append(seen, ctx.Value(key{}))
			}
		}))))
	r := newRuntime(t, wazero.NewRuntimeConfig(), nil)
	in := func(name string) context.Context { return context.WithValue(t.Context(), key{}, name) }
	g, err := wazeromem.New(mem, wazeromem.Options{}).Instantiate(in("instantiate"), "", instantiation(r, compile(t, r, guest{min: 1}), anonymous()))
	if err != nil {
		t.Fatal(err)
	}
	grow := func(module api.Module) error {
		_, err := module.ExportedFunction("grow").Call(t.Context(), 1)
		return err
	}
	err = g.Do(in("outer"), func(module api.Module) error {
		return errors.Join(grow(module), g.Do(in("inner"), grow), grow(module))
	})
	if err := errors.Join(err, g.Close(in("close"))); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(seen); got != "[instantiate outer inner outer close]" {
		t.Errorf("the contexts are %v", got)
	}
}

// TestRefusedMinimum: that is an error, where wazero alone panics, and the runtime is as before.
func TestRefusedMinimum(t *testing.T) {
	for engine, config := range engines {
		t.Run(engine, func(t *testing.T) {
			host := blockalloc.NewLimit(wazeromem.Default(), 8*page)
			mem := alloctest.New(t, alloctest.WithAllocator(host))
			r := newRuntime(t, config(), nil)
			large, small := compile(t, r, guest{min: 3}), compile(t, r, guest{min: 2, max: 4})
			for i, guests := range []*wazeromem.Allocator{
				wazeromem.New(mem, wazeromem.Options{Limit: 2 * page}),
				wazeromem.New(mem, wazeromem.Options{}),
			} {
				if i == 1 {
					host.SetMax(2 * page)
				}
				g, err := guests.Instantiate(t.Context(), "large", instantiation(r, large, anonymous()))
				if g != nil || !errors.Is(err, blockalloc.ErrLimit) || !strings.HasPrefix(err.Error(), `wazeromem: Instantiate("large"): `) {
					t.Errorf("Instantiate = %v, %v", g, err)
				}
				ctx := experimental.WithMemoryAllocator(t.Context(), guests.Named("large"))
				if got := panics(func() { _, _ = r.InstantiateModule(ctx, large, anonymous()) }); !strings.Contains(got, "slice bounds out of range") {
					t.Errorf("wazero alone panics with %q", got)
				}
				g = instantiate(t, guests, "small", r, small)
				if call(t, g, "size") != 2 {
					t.Error("the small guest has another size than 2 pages")
				}
				closeGuest(t, g)
			}
			if s := mem.ChildStats()["large"]; s.FailedAllocations != 4 || s.Allocations != 0 {
				t.Errorf("the large guests have %v", s)
			}
		})
	}
}

func panics(f func()) (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	f()
	return ""
}

// TestFailedInstantiation: the memory is freed, where wazero alone leaves it.
func TestFailedInstantiation(t *testing.T) {
	each(t, func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, _ bool) {
		r := newRuntime(t, config, nil)
		guests := wazeromem.New(mem, wazeromem.Options{})
		for text, broken := range map[string]guest{"unreachable": {min: 1, start: "trap"}, "out of bounds": {min: 1, data: true}} {
			compiled := compile(t, r, broken)
			g, err := guests.Instantiate(t.Context(), "broken", instantiation(r, compiled, anonymous()))
			if g != nil || err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("Instantiate = %v, %v, want %s", g, err, text)
			}
			alloctest.AssertLive(t, mem, 0, 0)

			var memory experimental.LinearMemory
			ctx := experimental.WithMemoryAllocator(t.Context(), experimental.MemoryAllocatorFunc(func(capacity, max uint64) experimental.LinearMemory {
				memory = guests.Allocate(capacity, max)
				return memory
			}))
			if _, err := r.InstantiateModule(ctx, compiled, anonymous()); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("InstantiateModule: %v", err)
			}
			alloctest.AssertLive(t, mem, page, 1)
			memory.Free()
		}
		if got := panics(func() { _, _ = guests.Instantiate(t.Context(), "nil", instantiation(r, nil, anonymous())) }); !strings.Contains(got, "nil") {
			t.Errorf("a panic of wazero for another reason is %q", got)
		}
		g, err := guests.Instantiate(t.Context(), "none", func(context.Context) (api.Module, error) { return nil, nil })
		if want := `wazeromem: Instantiate("none"): the function returned no module and no error: have it return what wazero returns`; g != nil || err == nil || err.Error() != want {
			t.Errorf("without a module: %v, %v", g, err)
		}
		if len(mem.Children()) != 0 {
			t.Errorf("children are left: %v", mem.Children())
		}
	})
}

// TestWithoutInstantiate: an Allocator in wazero's context. Modules share a name, and what has none counts in the Proxy.
func TestWithoutInstantiate(t *testing.T) {
	each(t, func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, _ bool) {
		r := newRuntime(t, config, nil)
		compiled := compile(t, r, guest{min: 1, max: 3})
		guests := wazeromem.New(mem, wazeromem.Options{Limit: 2 * page})
		for _, a := range []*wazeromem.Allocator{guests, guests.Named("tenant"), guests.Named("tenant")} {
			module, err := r.InstantiateModule(experimental.WithMemoryAllocator(t.Context(), a), compiled, anonymous())
			if err != nil {
				t.Fatal(err)
			}
			defer module.Close(t.Context()) // a second time
			if _, ok := module.Memory().Grow(2); ok {
				t.Error("it has grown beyond the limit")
			}
			if !module.Memory().WriteByte(page-1, 1) {
				t.Error("the last byte cannot be written")
			}
		}
		alloctest.AssertLive(t, mem, 3*page, 3)
		if s := mem.ChildStats(); len(s) != 1 || s["tenant"].LiveBytes != 2*page || s["tenant"].FailedReallocations != 2 {
			t.Errorf("the children have %v", s)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
		alloctest.AssertLive(t, mem, 0, 0)
	})
}

// TestShared: shared memory grows under several goroutines and stays where it is, on the heap if it is allocated whole. Also
// one that begins without a page.
func TestShared(t *testing.T) {
	each(t, func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, stays bool) {
		r := newRuntime(t, config.WithMemoryCapacityFromMax(!stays), nil)
		for _, min := range []uint32{0, 1} {
			const workers, times = 4, 8
			g := instantiate(t, wazeromem.New(mem, wazeromem.Options{}), "shared", r, compile(t, r, guest{min: min, max: min + workers*times, shared: true}))
			if call(t, g, "grow", 1) != int32(min) {
				t.Error("the first page is refused")
			}
			first := address(t, g)
			var wg sync.WaitGroup
			for i := range uint64(workers) {
				wg.Go(func() {
					for range times - 1 {
						before := call(t, g, "grow", 1)
						call(t, g, "store", uint64(before)*page+i, i+1)
						if got := call(t, g, "load", uint64(before)*page+i); got != int32(i)+1 {
							t.Errorf("page %d has %d", before, got)
						}
					}
				})
			}
			wg.Wait()
			if got := call(t, g, "size"); got != int32(min)+1+workers*(times-1) || address(t, g) != first {
				t.Errorf("it has %d pages, or has moved", got)
			}
			want := int64(min+1+workers*(times-1)) * page
			if !stays {
				want = int64(min+workers*times) * page
			}
			if s := g.Stats(); s.LiveBytes != want {
				t.Errorf("%v, want %d bytes", s, want)
			}
			closeGuest(t, g)
		}
	})
}

// TestMany: modules come, grow and go in many goroutines, some by the runtime's end.
func TestMany(t *testing.T) {
	each(t, func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, stays bool) {
		r := newRuntime(t, config, nil)
		compiled := compile(t, r, guest{min: 1, max: 20})
		want := map[bool]int32{true: 8, false: 4}[stays] // as in TestGreedy
		guests := wazeromem.New(mem, wazeromem.Options{Limit: 9 * page})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for round := range 10 {
					g := instantiate(t, guests, fmt.Sprint("tenant-", i%3), r, compiled)
					if grown := call(t, g, "fill"); grown != want {
						t.Errorf("it has grown by %d pages, want %d", grown, want)
					}
					if round < 9 {
						closeGuest(t, g)
					}
				}
			})
		}
		wg.Wait()
		if s := mem.Stats(); s.LiveBlocks != 8 {
			t.Errorf("%v, want 8 modules", s)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
		alloctest.AssertLive(t, mem, 0, 0)
		if s := mem.ChildStats(); len(s) != 3 || s["tenant-0"].Frees != 30 || len(mem.Children()) != 0 {
			t.Errorf("the children have %v", s)
		}
	})
}
