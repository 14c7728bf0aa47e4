package tracer_test

import (
	"context"
	"regexp"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/adapter.v2"
	"github.com/alloctrace/alloctrace/tracer"
)

const adapterPackages = "github.com/alloctrace/alloctrace/internal/adapter.v2/..."

// TestSkip: the stack of a block begins with who called an adapter, in the span, the log record and what
// decides about leaks.
func TestSkip(t *testing.T) {
	const adapterCalls = `^\S+/internal/adapter.v2/inner.Allocate
	\S+/internal/adapter.v2/inner/inner.go:\d+
\S+/internal/adapter%2\S+func1
	\S+/internal/adapter.v2/adapter.go:\d+
\S+/internal/adapter%2ev2.call
(.*\n){7}`
	const caller = `github.com/alloctrace/alloctrace/tracer_test.TestSkip
	\S+/skip_test.go:\d+
$`
	for _, c := range []struct {
		skip        []string
		want, first string
	}{
		{nil, adapterCalls + caller, "github.com/alloctrace/alloctrace/internal/adapter.v2/inner.Allocate"},
		{[]string{adapterPackages}, "^" + caller, "github.com/alloctrace/alloctrace/tracer_test.TestSkip"},
	} {
		want := regexp.MustCompile(c.want)
		var spans recorder
		var logged []string
		var first string
		l := tracer.NewLifetimes(tracer.LifetimeOptions{
			Rate: 1, Skip: c.skip, TracerProvider: &spans, OldAge: time.Nanosecond,
			Leaked: func(b tracer.LiveBlock) bool { first = b.Stack[0].Function; return true },
			Logs: func(_ context.Context, r tracer.LogRecord) {
				for _, a := range r.Attributes {
					if a.Key == "code.stacktrace" {
						logged = append(logged, a.Value.AsString())
					}
				}
			},
		})
		adapter.New(alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l)), 64)
		for l.Stats().Leaked == 0 { // until a clock has ticked
			l.Checkpoint()
		}
		l.Close()
		if len(logged) != 1 || !want.MatchString(logged[0]) {
			t.Errorf("the log has\n%q\nwant %s", logged, want)
		}
		for _, s := range spans.named(t, "block") {
			if stack := s.Attributes["code.stacktrace"].AsString(); !want.MatchString(stack) {
				t.Errorf("the span has\n%s\nwant %s", stack, want)
			}
		}
		if first != c.first {
			t.Errorf("without %q a block was allocated by %s, want %s", c.skip, first, c.first)
		}
	}
}
