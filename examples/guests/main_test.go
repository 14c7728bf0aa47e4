package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// runHere runs the program in a folder of its own, without settings of OpenTelemetry but these, and returns what it
// prints and the id of its trace.
func runHere(t *testing.T, endpoint string, args ...string) (text, id string, err error) {
	t.Helper()
	t.Chdir(t.TempDir())
	jaegertest.SetEndpoint(t, endpoint)
	var out strings.Builder
	err = run(t.Context(), args, &out)
	text = out.String()
	if m := regexp.MustCompile(`(?m)^trace +([0-9a-f]{32}) `).FindStringSubmatch(text); m != nil {
		id = m[1]
	}
	return text, id, err
}

// traceOf returns the trace with that id in the file that the program has written, and the spans of others.
func traceOf(t *testing.T, id string) (found jaegertest.Trace, others []jaegertest.Trace) {
	t.Helper()
	for _, s := range jaegertest.ReadFile(t, traceFile) {
		if s.TraceID == id {
			found = append(found, s)
		} else {
			others = append(others, jaegertest.Trace{s})
		}
	}
	return found, others
}

const table = `tenant       most bytes   live bytes  growths  refused
greedy          2097152            0        5        1
tenant-2         589824            0        4        0
tenant-3         589824            0        4        0
tenant-4         589824            0        4        0

all       live 0 B in 0 blocks, `

// TestProgram: the numbers by tenant are those of their requests, and the trace has each request with its memory.
func TestProgram(t *testing.T) {
	text, id, err := runHere(t, "")
	if err != nil || !strings.HasPrefix(text, table) {
		t.Errorf("%v, and it prints\n%s", err, text)
	}
	trace, others := traceOf(t, id)
	wantTrace(t, trace, 0)
	wantLeaks(t, others, id, 0)
}

// wantTrace checks that each request's span has what its guest grew by, that the refusal is below the one that was refused, and
// that net bytes are left of all.
func wantTrace(t *testing.T, trace jaegertest.Trace, net int) {
	t.Helper()
	number := func(s jaegertest.Span, key string) string { return fmt.Sprint(s.Attributes[key]) }
	byID := make(map[string]jaegertest.Span)
	for _, s := range trace {
		byID[s.SpanID] = s
	}
	requests := make(map[string]string)
	for _, s := range trace.Named("handle") {
		tenant := byID[s.ParentID]
		requests[tenant.Name] += " " + number(s, "pages") + ":" + number(s, "allocator.memory.net")
		if byID[tenant.ParentID].Name != "serve" {
			t.Errorf("a request of %s is not in serve", tenant.Name)
		}
	}
	two := " 2:131072"
	for tenant, want := range map[string]string{
		"greedy":   " 1:65536 2:131072 4:262144 8:524288 16:1048576 32:0 0:0",
		"tenant-2": two + two + two + two, "tenant-3": two + two + two + two, "tenant-4": two + two + two + two,
	} {
		if requests[tenant] != want {
			t.Errorf("the requests of %s, by pages and bytes, are%s, want%s", tenant, requests[tenant], want)
		}
	}
	refusals := trace.Named("reallocate")
	for _, s := range refusals {
		if r := byID[s.ParentID]; number(r, "pages") != "32" || number(r, "allocator.failures") != "1" || s.Attributes["error.type"] != "limit" {
			t.Errorf("the refusal %+v is of %+v", s, r)
		}
	}
	if serve := trace.Named("serve"); len(refusals) != 1 || len(serve) != 1 || number(serve[0], "allocator.memory.net") != fmt.Sprint(net) || number(serve[0], "allocator.failures") != "1" {
		t.Errorf("%d refusals, in %+v", len(refusals), serve)
	}
}

const leakTable = `tenant-2         589824       589824        4        0
tenant-3         589824            0        4        0
tenant-4         589824            0        4        0

all       live 576 KiB in 1 block, `

// TestLeak: the module that is never closed is found: by the count, by the calls that made its memory, and in the trace.
func TestLeak(t *testing.T) {
	text, id, err := runHere(t, "", "-leak")
	if !errors.Is(err, alloctrace.ErrLive) {
		t.Errorf("error %v, want ErrLive", err)
	}
	for _, want := range []string{leakTable, "\n  576 KiB in 1 block of 576 KiB of \"tenant-2\": ", ".(*host).tenant (main.go:"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not print %q but\n%s", want, text)
		}
	}
	_, others := traceOf(t, id)
	wantLeaks(t, others, id, 1)
}

// wantLeaks checks how many spans say that a block has leaked. Each links to the trace of the program.
func wantLeaks(t *testing.T, traces []jaegertest.Trace, id string, want int) {
	t.Helper()
	leaked := 0
	for _, trace := range traces {
		for _, s := range trace {
			if fmt.Sprint(s.Attributes["allocator.leaked"]) != "true" {
				continue
			}
			leaked++
			if s.Attributes["allocator.child"] != "tenant-2" || len(s.Links) != 1 || s.Links[0].TraceID != id {
				t.Errorf("the leak is %+v", s)
			}
		}
	}
	if leaked != want {
		t.Errorf("%d spans have leaked, want %d", leaked, want)
	}
}

// TestOptions: more tenants within another limit; what is no option is an error.
func TestOptions(t *testing.T) {
	text, _, err := runHere(t, "", "-tenants=12", "-limit=4194304")
	if err != nil || !strings.Contains(text, "\ngreedy          4194304            0        6        1\n") || !strings.Contains(text, "\ntenant-12        589824 ") {
		t.Errorf("%v, and it prints\n%s", err, text)
	}
	if _, _, err := runHere(t, "", "-limit=65535"); err == nil || !strings.Contains(err.Error(), `Instantiate("greedy")`) {
		t.Errorf("with less than a page for each: %v", err)
	}
}

// TestJaeger finds the requests and the leak in a real Jaeger.
func TestJaeger(t *testing.T) {
	j := jaegertest.Start(t)
	text, id, err := runHere(t, j.HTTPEndpoint(), "-leak")
	if !errors.Is(err, alloctrace.ErrLive) || !strings.Contains(text, leakTable) {
		t.Errorf("error %v, and it prints\n%s", err, text)
	}
	const spans = 1 + 4 + 3*4 + 7 + 1 // serve, tenants, their requests, the refusal
	wantTrace(t, j.Trace(id, spans), 9*page)
	wantLeaks(t, j.FindTagged("guests", "allocator.leaked", "true"), id, 1)
}
