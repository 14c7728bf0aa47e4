package otlp

import (
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
	"github.com/alloctrace/alloctrace/tracer"
)

// opensSession, closesSession and readsSession are the calls that are to be found.
//
//go:noinline
func opensSession(t *testing.T, mem *alloctrace.Proxy) blockalloc.Block {
	b, err := mem.Allocate(blockalloc.Layout{Size: 100, Align: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

//go:noinline
func closesSession(t *testing.T, mem *alloctrace.Proxy, b blockalloc.Block) { free(t, mem, b) }

//go:noinline
func readsSession(b blockalloc.Block) byte { return b.Bytes()[7] }

// TestJaegerFindsMemoryErrors: a search for the type of the error finds a use after free and an overrun of guarded blocks, each with its stacks, as
// spans of status Error. A search for error=true does so with other stores: that of Jaeger 2.13 in memory compares the text with a boolean.
func TestJaegerFindsMemoryErrors(t *testing.T) {
	j := jaegertest.Start(t)
	p := newTestProvider(t, Options{Endpoint: jaegerEndpoint(j, GRPC), Protocol: GRPC, ServiceName: "guarded"})
	guards := guard.New(blockalloc.Default(), guard.Options{Rate: 1, OnReport: tracer.Reports(tracer.WithTracerProvider(p))})
	mem := alloctrace.Wrap(guards)
	ctx, request := tracer.Start(t.Context(), "request", mem, tracer.WithTracerProvider(p)) // a trace that has no error
	session := opensSession(t, mem.WithContext(ctx))
	closesSession(t, mem, session)
	if guards.Catch(func() { readsSession(session) }) == nil {
		t.Fatal("this platform has no guards")
	}
	session = opensSession(t, mem)
	overrun := (*byte)(unsafe.Add(session.Pointer(), 101))
	_ = guards.Catch(func() { *overrun++ }) // the processor refuses it, or it is found at the free: see guard.Allocator
	closesSession(t, mem, session)
	request.End()
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}

	for errorType, want := range map[string]struct {
		name, status string
		stacks       map[string]string
	}{
		"use_after_free": {"use after free", "guard: Catch: block used after it was freed: at byte 7 of block 0x", map[string]string{
			"allocator.allocated.stacktrace": "opensSession", "allocator.freed.stacktrace": "closesSession", "code.stacktrace": "readsSession",
		}},
		"overrun": {"overrun", "guard: ", map[string]string{"allocator.allocated.stacktrace": "opensSession", "code.stacktrace": "TestJaegerFindsMemoryErrors"}},
	} {
		found := j.FindTagged("guarded", "error.type", errorType)
		if len(found) != 1 || len(found[0]) != 1 {
			t.Errorf("%s: the search finds %+v, want one trace of one span", errorType, found)
			continue
		}
		s := found[0][0]
		if s.Name != want.name || s.StatusCode != 2 || !strings.HasPrefix(s.StatusMessage, want.status) || s.Attributes["allocator.block.size"] != int64(100) {
			t.Errorf("%s: the span is %+v", errorType, s)
		}
		for key, function := range want.stacks {
			if stack, _ := s.Attributes[key].(string); !strings.Contains(stack, "otlp."+function) {
				t.Errorf("%s: %s is %q, want it to have %s", errorType, key, stack, function)
			}
		}
	}
}
