package otlp

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
	"github.com/alloctrace/alloctrace/tracer"
)

// guideBlocks returns the blocks of a language in docs/collector.md.
func guideBlocks(t *testing.T, lang string) (blocks []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/collector.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(page), "\n```"+lang+"\n")[1:] {
		block, _, _ := strings.Cut(part, "\n```\n")
		blocks = append(blocks, block+"\n")
	}
	return blocks
}

const loopback = `receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 127.0.0.1:0
      http:
        endpoint: 127.0.0.1:0
`

// inGuidesOnePercent is what the collector's probabilistic policy does: the FNV-1a hash of its salt and the trace's id is in the
// lowest hundredth.
func inGuidesOnePercent(t *testing.T, id string) bool {
	t.Helper()
	b, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	h := fnv.New64a()
	h.Write([]byte("default-hash-seed"))
	h.Write(b)
	return h.Sum64() <= math.MaxUint64/100
}

// TestTailSampling: the collector of docs/collector.md sends on the traces with a leak, an error or a high peak, and 1 % of the
// rest, whole and no other.
func TestTailSampling(t *testing.T) {
	storage := jaegertest.Start(t)
	// What a test has to change: addresses, the time that it waits, and that traces arrive in the order of the choices.
	collector := jaegertest.StartCollector(t, guideBlocks(t, "yaml")[0], loopback, fmt.Sprintf(`processors:
  tail_sampling:
    decision_wait: 1s
exporters:
  otlp:
    endpoint: %s
    sending_queue:
      enabled: false
`, strings.TrimPrefix(storage.GRPCEndpoint(), "http://")))

	// A trace is in one batch, so that the choice is of the whole one: no batch is full, or sent by time.
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "2147483647")
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		service := "sampled by " + proto.String()
		p := newTestProvider(t, Options{Endpoint: jaegerEndpoint(collector, proto), Protocol: proto, ServiceName: service})
		mem := alloctest.New(t)
		kept := make(map[string]string) // the kind by the trace's id
		rest, chosen := 0, 0
		// request is a trace of two spans: a server's, and a region in it.
		request := func(kind string, keep bool, work func(context.Context, blockalloc.Allocator)) {
			t.Helper()
			ctx, server := p.Tracer("server").Start(t.Context(), kind)
			ctx, r := tracer.Start(ctx, "search", mem, tracer.WithTracerProvider(p))
			work(ctx, r.Allocator())
			r.End()
			server.End()
			id := server.SpanContext().TraceID().String()
			if !keep {
				rest++
			}
			if !keep && inGuidesOnePercent(t, id) {
				chosen++
				kind = "chosen " + kind
				keep = true
			}
			if keep {
				kept[id] = kind
			}
		}
		block := func(size uintptr) func(context.Context, blockalloc.Allocator) {
			return func(_ context.Context, mem blockalloc.Allocator) { free(t, mem, allocate(t, mem, size)) }
		}
		leaked := func(is bool) func(context.Context, blockalloc.Allocator) {
			return func(ctx context.Context, _ blockalloc.Allocator) {
				_, s := p.Tracer("lifetimes").Start(ctx, "lifetime", trace.WithAttributes(attribute.Bool("allocator.leaked", is)))
				s.End()
			}
		}
		flush := func() {
			t.Helper()
			if err := p.ForceFlush(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		const bound = 64 << 20
		for range 5 {
			request("leak", true, leaked(true))
			request("no leak", false, leaked(false))
			request("failure", true, func(_ context.Context, mem blockalloc.Allocator) {
				if b, err := mem.Allocate(blockalloc.Layout{Size: 1, Align: 999}); err == nil {
					t.Errorf("a block %v of alignment 999", b)
				}
			})
			request("error", true, func(ctx context.Context, _ blockalloc.Allocator) {
				trace.SpanFromContext(ctx).SetStatus(codes.Error, "not found")
			})
			request("much", true, block(bound))
			request("not much", false, block(bound/2))
		}
		for i := range 1000 {
			if i%100 == 0 {
				flush()
			}
			request("rest", false, block(4096))
		}
		flush()
		// Traces are chosen in the order of their arrival, and stored before the next are chosen. So when the second of
		// these is there, all are.
		for range 2 {
			var id string
			request("last", true, func(ctx context.Context, _ blockalloc.Allocator) {
				s := trace.SpanFromContext(ctx)
				id = s.SpanContext().TraceID().String()
				s.SetStatus(codes.Error, "the last")
			})
			flush()
			storage.Trace(id, 2)
		}
		got := make(map[string]bool)
		for _, tr := range storage.FindTraces(service) {
			id := tr[0].TraceID
			got[id] = true
			kind, ok := kept[id]
			if want := map[string]int{"leak": 3, "failure": 3, "chosen no leak": 3}; !ok {
				t.Errorf("Jaeger has the trace %s with %v, which is not to be kept", id, tr)
			} else if n := max(2, want[kind]); len(tr) != n {
				t.Errorf("the trace %s of kind %q has %d spans, want %d", id, kind, len(tr), n)
			}
		}
		for id, kind := range kept {
			if !got[id] {
				t.Errorf("Jaeger does not have the trace %s of kind %q", id, kind)
			}
		}
		t.Logf("%d traces of %d kept, of the rest %d of %d", len(got), rest+len(kept)-chosen, chosen, rest)
	})
}
