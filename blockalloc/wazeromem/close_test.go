package wazeromem_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/wazeromem"
)

// TestCloseDuringUse: whoever closes the module while a call is under way, its memory stays until that has ended, and can grow.
func TestCloseDuringUse(t *testing.T) {
	closers := map[string]func(t *testing.T, g *wazeromem.Guest, m api.Module, r wazero.Runtime) error{
		"guest": func(t *testing.T, g *wazeromem.Guest, _ api.Module, _ wazero.Runtime) error {
			return g.Close(t.Context())
		},
		"module": func(t *testing.T, _ *wazeromem.Guest, m api.Module, _ wazero.Runtime) error {
			return m.Close(t.Context())
		},
		"runtime": func(t *testing.T, _ *wazeromem.Guest, _ api.Module, r wazero.Runtime) error {
			return r.Close(t.Context())
		},
	}
	for closer, closeIt := range closers {
		each(t, func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, _ bool) {
			inside, closed := make(chan struct{}), make(chan struct{})
			r := newRuntime(t, config, func() {
				inside <- struct{}{}
				<-closed
			})
			g := instantiate(t, wazeromem.New(mem, wazeromem.Options{}), closer, r, compile(t, r, guest{min: 1, max: 2}))
			ended := make(chan error)
			var module api.Module
			go func() {
				ended <- g.Do(t.Context(), func(m api.Module) error {
					module = m
					results, err := m.ExportedFunction("storeCallLoad").Call(t.Context())
					if len(results) == 1 && results[0] != 42 {
						t.Errorf("after %s has closed it, the call reads %d", closer, results[0])
					}
					if b, ok := m.Memory().ReadByte(7); !ok || b != 42 {
						t.Errorf("after %s has closed it, the memory has %d", closer, b)
					}
					return err
				})
			}()
			<-inside
			if err := closeIt(t, g, module, r); err != nil {
				t.Error(err)
			}
			alloctest.AssertLive(t, mem, page, 1)
			if err := g.Do(t.Context(), nil); !errors.Is(err, blockalloc.ErrClosed) {
				t.Errorf("a second use: %v", err)
			}
			close(closed)
			if err := <-ended; err != nil {
				var exit *sys.ExitError // as wazero ends a call whose module is closed
				if !errors.As(err, &exit) {
					t.Error(err)
				}
			}
			alloctest.AssertLive(t, mem, 0, 0)
			closeGuest(t, g)
		})
	}
}

// TestContextDone: a guest that never ends is ended by its context, and its memory is freed by Close, also if wazero has
// forgotten it. One call at a time: wazero's own state is not safe for several that end so at once.
func TestContextDone(t *testing.T) {
	each(t, func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, _ bool) {
		r := newRuntime(t, config.WithCloseOnContextDone(true), nil)
		g := instantiate(t, wazeromem.New(mem, wazeromem.Options{}), "", r, compile(t, r, guest{min: 1}))
		ctx, cancel := context.WithCancel(t.Context())
		begun, ended := make(chan struct{}), make(chan error)
		go func() {
			ended <- g.Do(ctx, func(module api.Module) error {
				begun <- struct{}{}
				_, err := module.ExportedFunction("spin").Call(ctx)
				return err
			})
		}()
		<-begun
		cancel()
		var exit *sys.ExitError
		if err := <-ended; !errors.As(err, &exit) || exit.ExitCode() != sys.ExitCodeContextCanceled {
			t.Errorf("the call ends with %v", err)
		}
		if err := g.Do(t.Context(), nil); !errors.Is(err, blockalloc.ErrClosed) {
			t.Errorf("Do after that: %v", err)
		}
		closeGuest(t, g)
		alloctest.AssertLive(t, mem, 0, 0)
	})
}

// TestForgotten: a context ends just when a call returns. Wazero then takes the module for closed, and frees nothing.
func TestForgotten(t *testing.T) {
	mem := alloctest.New(t, alloctest.WithAllocator(wazeromem.Default()))
	ctx, cancel := context.WithCancel(t.Context())
	r := newRuntime(t, wazero.NewRuntimeConfig().WithCloseOnContextDone(true), nil)
	g := instantiate(t, wazeromem.New(mem, wazeromem.Options{}), "", r, compile(t, r, guest{min: 1}))
	var module api.Module
	_ = g.Do(t.Context(), func(m api.Module) error {
		module = m
		return nil
	})
	(module.(interface {
		CloseModuleOnCanceledOrTimeout(context.Context) context.CancelFunc
	})).CloseModuleOnCanceledOrTimeout(ctx)
	cancel()
	for !module.IsClosed() {
		runtime.Gosched()
	}
	alloctest.AssertLive(t, mem, page, 1)
	closeGuest(t, g)
	alloctest.AssertLive(t, mem, 0, 0)
}

// TestImportedMemory: a module that imports a guest's memory is closed, and the memory stays with the guest.
func TestImportedMemory(t *testing.T) {
	each(t, func(t *testing.T, config wazero.RuntimeConfig, mem *alloctrace.Proxy, _ bool) {
		r := newRuntime(t, config, nil)
		guests := wazeromem.New(mem, wazeromem.Options{})
		owner, err := guests.Instantiate(t.Context(), "owner", instantiation(r, compile(t, r, guest{min: 1, max: 4}), wazero.NewModuleConfig().WithName("owner")))
		if err != nil {
			t.Fatal(err)
		}
		user := instantiate(t, guests, "user", r, compile(t, r, guest{min: 1, max: 4, imported: "owner"}))
		call(t, user, "store", 3, 33)
		if call(t, user, "grow", 1) != 1 || mem.ChildStats()["owner"].LiveBytes != 2*page || user.Stats().LiveBytes != 0 {
			t.Errorf("the growth is not the owner's: %v", mem.ChildStats())
		}
		closeGuest(t, user)
		if got := call(t, owner, "load", 3); got != 33 {
			t.Errorf("the owner reads %d", got)
		}
		alloctest.AssertLive(t, mem, 2*page, 1)
		if call(t, owner, "grow", 1) != 2 || call(t, owner, "load", 3) != 33 { // by wazero, on the Go heap
			t.Error("the owner cannot grow any more, or has lost what it had")
		}
		alloctest.AssertLive(t, mem, 2*page, 1)
		closeGuest(t, owner)
		alloctest.AssertLive(t, mem, 0, 0)
	})
}

// TestStartCloses: a start function may close the module, as proc_exit does.
func TestStartCloses(t *testing.T) {
	mem := alloctest.New(t, alloctest.WithAllocator(wazeromem.Default()))
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	_, err := r.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(func(ctx context.Context, module api.Module) {
		_ = module.CloseWithExitCode(ctx, 0)
		panic(sys.NewExitError(0))
	}).Export("call").Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := wazeromem.New(mem, wazeromem.Options{}).Instantiate(t.Context(), "", instantiation(r, compile(t, r, guest{min: 1}), anonymous().WithStartFunctions("call")))
	if err != nil {
		t.Fatal(err)
	}
	alloctest.AssertLive(t, mem, 0, 0)
	if err := g.Do(t.Context(), nil); !errors.Is(err, blockalloc.ErrClosed) {
		t.Errorf("Do: %v", err)
	}
	closeGuest(t, g)
}

// TestStartInstantiates: a module that a start function instantiates in the same context has a memory of its own.
func TestStartInstantiates(t *testing.T) {
	mem := alloctest.New(t, alloctest.WithAllocator(wazeromem.Default()))
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	inner := compile(t, r, guest{min: 2})
	depth := 0
	_, err := r.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(func(ctx context.Context) {
		if depth++; depth == 1 {
			if _, err := r.InstantiateModule(ctx, inner, anonymous()); err != nil {
				panic(err)
			}
		}
	}).Export("call").Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g := instantiate(t, wazeromem.New(mem, wazeromem.Options{}), "outer", r, compile(t, r, guest{min: 1, start: "call"}))
	if g.Stats().LiveBytes != page || mem.Stats().LiveBytes != 3*page {
		t.Errorf("%v of %v", g.Stats(), mem.Stats())
	}
	closeGuest(t, g)
	alloctest.AssertLive(t, mem, 2*page, 1)
}

// TestNoPages: a memory that never has a page takes nothing.
func TestNoPages(t *testing.T) {
	mem := alloctest.New(t)
	m := wazeromem.New(mem, wazeromem.Options{}).Allocate(0, 0)
	if b := m.Reallocate(0); b == nil || len(b) != 0 {
		t.Errorf("Reallocate(0) = %v, want no bytes and not nil", b)
	}
	alloctest.AssertLive(t, mem, 0, 0)
	if b := m.Reallocate(page); len(b) != page { // as wazero's own tests ask, beyond the maximum
		t.Errorf("Reallocate returned %d bytes", len(b))
	}
	m.Free()
}

// refusing does not take blocks back while it refuses.
type refusing struct {
	blockalloc.Allocator
	refuses bool
}

func (r *refusing) Free(b blockalloc.Block) error {
	if r.refuses {
		return blockalloc.ErrNotOwned
	}
	return r.Allocator.Free(b)
}

// TestMisuse: what wazero has no result for is reported, or panics.
func TestMisuse(t *testing.T) {
	var reported []error
	guests := func(o wazeromem.Options) (*refusing, *wazeromem.Allocator) {
		r := &refusing{Allocator: alloctest.New(t)}
		return r, wazeromem.New(alloctrace.Wrap(r), o).Named("tenant")
	}
	inner, silent := guests(wazeromem.Options{OnError: func(err error) { reported = append(reported, err) }})
	m := silent.Allocate(page, 2*page)
	if len(m.Reallocate(page)) != page {
		t.Fatal("no memory")
	}
	m.Free()
	m.Free() // as often as wazero likes
	if len(reported) != 0 {
		t.Errorf("reported: %v", reported)
	}
	if m.Reallocate(2*page) != nil || len(reported) != 1 || !errors.Is(reported[0], blockalloc.ErrClosed) {
		t.Errorf("growth of a freed memory: reported %v", reported)
	}
	m = silent.Allocate(page, page)
	m.Reallocate(page)
	inner.refuses = true
	if m.Free(); len(reported) != 2 || !errors.Is(reported[1], blockalloc.ErrNotOwned) || !strings.Contains(reported[1].Error(), `"tenant"`) {
		t.Errorf("a failed free: reported %v", reported)
	}
	inner.refuses = false
	m.Free()

	_, loud := guests(wazeromem.Options{})
	m = loud.Allocate(page, 2*page)
	m.Reallocate(page)
	m.Free()
	if got := panics(func() { m.Reallocate(2 * page) }); !strings.Contains(got, "memory.grow to 131072 B in guest \"tenant\": allocator closed") {
		t.Errorf("growth of a freed memory panics with %q", got)
	}
	if got := panics(func() { wazeromem.New(nil, wazeromem.Options{}) }); got != "wazeromem: New(nil): pass a Proxy, such as alloctrace.Wrap(wazeromem.Default())" {
		t.Errorf("New(nil) panics with %q", got)
	}
}

// TestFailedFree: Close returns the allocator's error, and a second one tries again.
func TestFailedFree(t *testing.T) {
	inner := &refusing{Allocator: alloctest.New(t)}
	r := newRuntime(t, wazero.NewRuntimeConfig(), nil)
	g := instantiate(t, wazeromem.New(alloctrace.Wrap(inner), wazeromem.Options{}), "tenant", r, compile(t, r, guest{min: 1}))
	inner.refuses = true
	if err := g.Close(t.Context()); !errors.Is(err, blockalloc.ErrNotOwned) || g.Stats().LiveBytes != page {
		t.Errorf("Close: %v, with %v", err, g.Stats())
	}
	inner.refuses = false
	closeGuest(t, g)
}

// recorder is a test that may fail.
type recorder struct {
	*testing.T
	cleanups []func()
	failures []string
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// TestLeak: a runtime that is not closed is a leak of the test, with the calls of who instantiated the module.
func TestLeak(t *testing.T) {
	rec := &recorder{T: t}
	mem := alloctest.New(rec, alloctest.WithAllocator(wazeromem.Default()),
		alloctest.WithSkip("github.com/alloctrace/alloctrace/blockalloc/wazeromem", "github.com/tetratelabs/wazero/..."))
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context()) // at last
	if _, err := r.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(func() {}).Export("call").Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	compiled := compile(t, r, guest{min: 3})
	guests := wazeromem.New(mem, wazeromem.Options{})
	for _, instantiate := range []func() error{
		func() error {
			_, err := guests.Instantiate(t.Context(), "tenant", instantiation(r, compiled, anonymous()))
			return err
		},
		func() error {
			_, err := r.InstantiateModule(experimental.WithMemoryAllocator(t.Context(), guests), compiled, anonymous())
			return err
		},
	} {
		if err := instantiate(); err != nil {
			t.Fatal(err)
		}
	}
	for i := len(rec.cleanups) - 1; i >= 0; i-- {
		rec.cleanups[i]()
	}
	report := strings.Join(rec.failures, "\n")
	for _, want := range []string{"leaked 384 KiB in 2 blocks", `192 KiB of "tenant": wazeromem_test.`, "192 KiB: wazeromem_test.TestLeak", ", wazeromem_test.TestLeak (close_test.go:"} {
		if !strings.Contains(report, want) {
			t.Errorf("the test fails without %q:\n%s", want, report)
		}
	}
}
