package wazeromem

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/alloctrace/alloctrace/counter"
)

// A Guest is a module with its memory. Several goroutines may use it at once if they may use the module: a function of wazero is
// for one at a time. Close it by its own Close.
//
// If other modules import the memory, close them after the guest, and do not use them in between. When one of them is closed
// before, the memory stays with the guest, but wazero has forgotten whose it is: to grow it copies it to the Go heap.
type Guest struct {
	memory *memory
	module api.Module
}

var _ counter.Source = (*Guest)(nil)

// Instantiate has f instantiate a module, by any method of a wazero.Runtime with the context that f is given, and gives it memory
// that is counted in a child of that name. Several guests may have one name: that of a tenant. The minimum is counted in the
// region of ctx.
//
// If the minimum is refused, Instantiate returns the allocator's error, which wraps blockalloc.ErrLimit for example: wazero
// panics then. Other errors are f's. After an error the memory is freed: a function that the module has left in the
// table of another one must not be called then.
func (a *Allocator) Instantiate(ctx context.Context, name string, f func(ctx context.Context) (api.Module, error)) (g *Guest, err error) {
	m := a.newMemory(name)
	u, _ := m.begin(ctx)
	defer func() {
		if g == nil { // also by a panic, which goes on
			err = errors.Join(err, m.close(true))
		}
		if ended := m.end(u); ended != nil {
			g, err = nil, errors.Join(err, ended)
		}
	}()
	module, err := m.instantiate(ctx, f)
	if err == nil && module == nil {
		err = errors.New("the function returned no module and no error: have it return what wazero returns")
	}
	if err != nil {
		return nil, fmt.Errorf("wazeromem: Instantiate(%q): %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.module = module
	return &Guest{m, module}, nil
}

// instantiate calls f, and returns why the minimum was refused where wazero panics.
func (m *memory) instantiate(ctx context.Context, f func(ctx context.Context) (api.Module, error)) (module api.Module, err error) {
	defer func() {
		m.mu.Lock()
		refusal := m.refusal
		m.mu.Unlock()
		if refusal == nil {
			return
		}
		_ = recover()
		if err = refusal; module != nil { // a minimum of no pages
			err = errors.Join(err, module.Close(ctx))
		}
	}()
	return f(experimental.WithMemoryAllocator(ctx, m))
}

// Do calls f with the module, and returns f's error. The module's memory stays as long as f runs, whoever closes the module
// meanwhile, the runtime, and the guest itself included: it is freed when the last call of Do has ended. What the memory
// grows by is counted in the region of ctx, and hooks are given ctx. If calls of Do overlap, that is the context of the one that
// began last.
//
// To end a call that runs too long, cancel the context that f calls the guest with: see wazero's
// RuntimeConfig.WithCloseOnContextDone.
//
// The module must not be used after f has returned, nor must what api.Memory.Read returned. Once the module is closed, Do
// returns an error that wraps blockalloc.ErrClosed without calling f. It costs an allocation on the Go heap, and takes a lock of
// the guest's twice.
func (g *Guest) Do(ctx context.Context, f func(module api.Module) error) (err error) {
	u, err := g.memory.begin(ctx)
	if err != nil {
		return fmt.Errorf("wazeromem: Do: %w: instantiate it anew", err)
	}
	defer func() {
		if ended := g.memory.end(u); ended != nil {
			err = errors.Join(err, ended)
		}
	}()
	return f(g.module)
}

// Close closes the module, and frees the memory when no call of Do is under way, in the region of ctx. A second call does
// nothing. Close frees the memory also where wazero has closed the module and forgotten it, see the
// package comment.
func (g *Guest) Close(ctx context.Context) error {
	u := &use{ctx: ctx}
	g.memory.mu.Lock()
	g.memory.uses = append(g.memory.uses, u)
	g.memory.mu.Unlock()
	return errors.Join(g.module.Close(ctx), g.memory.close(true), g.memory.end(u))
}

// Stats returns the numbers of the guest's memory: live bytes are those that it has, failed reallocations are growth that was
// refused. They are part of those of the Proxy, where they stay by name, see alloctrace.Proxy.ChildStats.
func (g *Guest) Stats() counter.Stats { return g.memory.child.Stats() }
