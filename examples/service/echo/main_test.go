package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// runTo runs the load, whose spans go to a collector. It returns what was printed, line by line.
func runTo(t *testing.T, collector string, l *load) (lines []string, err error) {
	t.Helper()
	jaegertest.SetEndpoint(t, collector)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
	defer otel.SetTracerProvider(noop.NewTracerProvider())
	var out strings.Builder
	err = run(t.Context(), l, &out)
	t.Log(out.String())
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), err
}

var rowPattern = regexp.MustCompile(`^(\S+(?: \S+)?) +(\d+) blocks +(\S+ \S+) +live (\S+ \S+) in (\d+)$`)

// TestLoad: what is printed by method is what the spans of the calls have, and with or without a leak the rest is as it should be.
func TestLoad(t *testing.T) {
	for _, leak := range []bool{false, true} {
		t.Run(fmt.Sprintf("leak %v", leak), func(t *testing.T) {
			const clients, rounds = 5, 40
			url, spans := jaegertest.Collect(t)
			lines, err := runTo(t, url, &load{clients: clients, rounds: rounds, leak: leak})
			if leak != errors.Is(err, alloctrace.ErrLive) || !leak && err != nil {
				t.Errorf("the error is %v", err)
			}
			allocated, calls, leaked := make(map[string]int64), make(map[string]int), 0
			for _, s := range spans() {
				if method, ok := strings.CutPrefix(s.Name, service+"/"); ok {
					n, _ := s.Attributes["allocator.memory.allocated"].(int64)
					allocated[method] += n
					calls[method]++
				} else if s.Attributes["allocator.leaked"] == true {
					leaked++
					if stack, _ := s.Attributes["code.stacktrace"].(string); !strings.Contains(stack, ".(*load).upper") {
						t.Errorf("the leak's stack is %q", stack)
					}
				}
			}
			wantLeaked := 0
			if leak {
				wantLeaked = clients * rounds / 100
			}
			if calls["Upper"] != clients*rounds || calls["Join"] == 0 || calls["Join"] > clients*rounds || leaked != wantLeaked {
				t.Errorf("spans of %v, and %d leaks, want %d calls of Upper and %d leaks", calls, leaked, clients*rounds, wantLeaked)
			}
			var names []string
			for _, line := range lines[1 : len(lines)-1] {
				m := rowPattern.FindStringSubmatch(line)
				if m == nil {
					t.Fatalf("the line is %q", line)
				}
				name := m[1]
				names = append(names, name)
				if want := counter.FormatBytes(allocated[name]); calls[name] > 0 && m[3] != want {
					t.Errorf("%s has allocated %s, and its spans %s", name, m[3], want)
				}
				if name == "Upper" && (m[2] != fmt.Sprint(clients*rounds) || m[5] != fmt.Sprint(wantLeaked)) || name != "Upper" && (m[2] == "0" || m[4] != "0 B" || m[5] != "0") {
					t.Errorf("%s", line)
				}
			}
			if got := fmt.Sprint(names); got != "[Upper Join gRPC's server gRPC's client]" {
				t.Errorf("the rows are %s", got)
			}
		})
	}
}

// TestFails: what goes wrong is an error, and leaves nothing behind.
func TestFails(t *testing.T) {
	collector, _ := jaegertest.Collect(t)
	if _, err := runTo(t, "no URL", new(load)); err == nil {
		t.Error("a collector without an address is none")
	}
	if _, err := runTo(t, collector, new(load)); err != nil {
		t.Errorf("without clients: %v", err)
	}
}

// TestJaeger finds a call in a real Jaeger by the id that is printed, and the leaks by their tag.
func TestJaeger(t *testing.T) {
	j := jaegertest.Start(t)
	lines, err := runTo(t, j.HTTPEndpoint(), &load{clients: 2, rounds: 50, leak: true})
	if !errors.Is(err, alloctrace.ErrLive) {
		t.Errorf("with a leak: %v", err)
	}
	id, ok := strings.CutPrefix(lines[0], "a trace: ")
	if !ok {
		t.Fatalf("the first line is %q", lines[0])
	}
	got := j.Trace(id, 1)
	if len(got.Named(service+"/Upper")) != 1 || got[0].Attributes["rpc.method"] != "Upper" || fmt.Sprint(got[0].Attributes["allocator.memory.net"]) == "<nil>" {
		t.Errorf("Jaeger has %+v", got)
	}
	if got := j.FindTagged("echo", "allocator.leaked", "true"); len(got) != 1 {
		t.Errorf("Jaeger has %d leaks, want 1", len(got))
	}
}
