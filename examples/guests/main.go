// Guests runs the WebAssembly modules of several tenants, each within its own limit of memory. One of them is greedy: it is refused
// what is over its limit, and goes on with what it has, as its neighbours do. What each has is counted by tenant, and each call
// is a region in a trace.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc/wazeromem"
	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/tracer"
)

const (
	page      = 64 << 10
	traceFile = "guests.trace.json"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "guests:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("guests", flag.ContinueOnError)
	tenants := flags.Int("tenants", 4, "how many tenants there are, the greedy one included")
	limit := flags.Int64("limit", 2<<20, "what each tenant may have, in bytes")
	leak := flags.Bool("leak", false, "never close the module of tenant-2")
	if err := flags.Parse(args); err != nil {
		return err
	}
	spans, err := newSpans(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spans.Shutdown(ctx)) }()
	otel.SetTracerProvider(spans)
	lives := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, Skip: []string{"github.com/tetratelabs/wazero/...", "github.com/alloctrace/alloctrace/blockalloc/wazeromem"}})
	mem := alloctrace.Wrap(wazeromem.Default(), alloctrace.WithName("guests"), alloctrace.WithHooks(lives))
	h := &host{mem: mem, guests: wazeromem.New(mem, wazeromem.Options{Limit: *limit}), runtime: wazero.NewRuntime(ctx), leak: *leak}
	defer func() { err = errors.Join(err, h.runtime.Close(ctx)) }()
	if h.compiled, err = h.runtime.CompileModule(ctx, guest); err != nil {
		return err
	}

	ctx, region := tracer.Start(ctx, "serve", mem)
	err = h.serve(ctx, *tenants)
	region.End()
	h.print(out, *tenants)
	fmt.Fprintf(out, "\nall       %v\n", mem.Stats())
	if blocks := mem.Stats().LiveBlocks; blocks > 0 {
		fmt.Fprintf(out, "\n%v\n", lives.Profile().Report())
	}
	lives.Close() // each block that is live has a span
	fmt.Fprintf(out, "trace     %v in %s\n", trace.SpanContextFromContext(ctx).TraceID(), cmp.Or(endpoint(), traceFile+", for the Upload tab of Jaeger"))
	return errors.Join(err, mem.Close()) // which fails if blocks are live
}

// endpoint returns the collector that the environment names, "" if it names none.
func endpoint() string {
	return cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

// newSpans returns where spans go: to the collector, or into a file.
func newSpans(ctx context.Context) (*otlp.Provider, error) {
	o := otlp.Options{ServiceName: "guests"}
	if endpoint() == "" {
		o.File = traceFile
	}
	return otlp.New(ctx, o)
}

type host struct {
	mem      *alloctrace.Proxy
	guests   *wazeromem.Allocator
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	leak     bool
}

// name returns the name of the tenant with number i, from 1 on.
func name(i int) string {
	if i == 1 {
		return "greedy"
	}
	return fmt.Sprint("tenant-", i)
}

// serve serves all tenants at the same time.
func (h *host) serve(ctx context.Context, tenants int) error {
	errs := make([]error, tenants+1)
	var wg sync.WaitGroup
	for i := 1; i <= tenants; i++ {
		wg.Go(func() { errs[i] = h.tenant(ctx, name(i), i == 1, h.leak && i == 2) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// tenant sends requests to one tenant's module. The greedy one doubles what it wants until it is refused, and then serves
// a request for nothing more.
func (h *host) tenant(ctx context.Context, name string, greedy, leak bool) (err error) {
	ctx, region := tracer.Start(ctx, name, h.mem)
	defer region.End()
	module, err := h.guests.Instantiate(ctx, name, func(ctx context.Context) (api.Module, error) {
		return h.runtime.InstantiateModule(ctx, h.compiled, wazero.NewModuleConfig().WithName(""))
	})
	if err != nil {
		return err
	}
	if !leak {
		defer func() { err = errors.Join(err, module.Close(ctx)) }()
	}
	if !greedy {
		for range 4 {
			if _, err := h.request(ctx, module, 2); err != nil {
				return err
			}
		}
		return nil
	}
	for pages := uint64(1); ; pages *= 2 {
		served, err := h.request(ctx, module, pages)
		if err != nil {
			return err
		}
		if !served {
			_, err := h.request(ctx, module, 0)
			return err
		}
	}
}

// request has a module handle a request that needs so many pages more, and reports whether it had them.
func (h *host) request(ctx context.Context, module *wazeromem.Guest, pages uint64) (served bool, err error) {
	ctx, region := tracer.Start(ctx, "handle", h.mem, tracer.WithAttributes(attribute.Int64("pages", int64(pages))))
	defer region.End()
	err = module.Do(ctx, func(m api.Module) error {
		results, err := m.ExportedFunction("handle").Call(ctx, pages)
		served = err == nil && int32(results[0]) >= 0
		return err
	})
	return served, err
}

// print prints the numbers by tenant, which stay after their modules are closed.
func (h *host) print(out io.Writer, tenants int) {
	stats := h.mem.ChildStats()
	fmt.Fprintf(out, "%-10s %12s %12s %8s %8s\n", "tenant", "most bytes", "live bytes", "growths", "refused")
	for i := 1; i <= tenants; i++ {
		s := stats[name(i)]
		fmt.Fprintf(out, "%-10s %12d %12d %8d %8d\n", name(i), s.PeakBytes, s.LiveBytes, s.Reallocations, s.FailedReallocations)
	}
}
