package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/fields"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// killed is what a box has of a process that was killed: something of everything.
func killed() *blackbox.Contents {
	at := time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)
	stack := []blackbox.Frame{
		{Function: "example.com/cache.(*Cache).load", File: "/src/cache.go", Line: 88, PC: 1},
		{Function: "main.main", File: "/src/main.go", Line: 7, PC: 2},
	}
	sites := []blackbox.Site{
		{Blocks: 2, Bytes: 8192, Error: 100, Stack: stack, Labels: []blackbox.Label{{Key: "allocator", Value: "cache"}, {Key: "KEY", Value: "7"}}},
		{Blocks: 1, Bytes: 100},
	}
	return &blackbox.Contents{
		Damage: []string{"something\nis wrong"},
		PID:    4711, Created: at, Written: at.Add(2 * time.Second),
		Build: blackbox.Build{
			Executable: `C:\bin\server.exe`, ID: "a/b", Go: "go1.26.8", Package: "example.com/server", Version: "v1.2.3",
			Settings: map[string]string{"GOOS": "windows", "vcs.revision": "c029766"},
		},
		Proxies: []blackbox.Proxy{
			{Name: "mem", Stats: counter.Stats{LiveBytes: 8192, LiveBlocks: 2, PeakBytes: 9000, AllocatedBytes: 10_000, FreedBytes: 1808, Allocations: 5, Reallocations: 4, Frees: 3, FailedFrees: 1}},
			{Name: "mem", Child: "cache", Stats: counter.Stats{LiveBytes: 8192}},
			{Name: "other"},
		},
		Omitted: 2,
		Live:    blackbox.Sites{Time: at.Add(2 * time.Second), Bytes: 8192, Blocks: 2, Sites: sites, Omitted: 3},
		Peak:    blackbox.Sites{Time: at.Add(time.Second), Bytes: 9000, Blocks: 3, Error: 50, Sites: sites},
		Events: []blackbox.Event{
			{Time: at, Kind: alloctrace.Allocated, Addr: 64, Size: 64, Align: 64},
			{Time: at.Add(3 * time.Second), Kind: alloctrace.Freeing, Addr: 64, Size: 64, Align: 64, Child: "cache"},
			{Kind: alloctrace.FreeFailed, Addr: 1 << 63, Size: 1 << 63, Align: 64, Err: "no\nluck"},
		},
		Gapless: 1,
	}
}

// TestOTLP: the trace is as it was, and its attributes are those of docs/fields.md.
func TestOTLP(t *testing.T) {
	const golden = "testdata/trace.json"
	var written bytes.Buffer
	if err := writeOTLP(&written, killed(), 2); err != nil {
		t.Fatal(err)
	}
	const span = `{"traceId":` // has a line to itself
	got := strings.ReplaceAll(written.String(), span, "\n"+span)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the trace is not that of %s; with -update it is written anew:\n%s", golden, got)
	}

	var names []string
	for _, s := range traceOf(killed(), -1) {
		list := slices.Concat(s.Attributes, s.Resource.Attributes())
		for _, e := range s.Events {
			list = append(list, e.Attributes...)
		}
		for _, a := range list {
			names = append(names, string(a.Key)+" "+strings.ToLower(a.Value.Type().String()))
		}
	}
	fields.Compare(t, "testdata/trace.txt", names)
}

// TestOTLPBounds: what there is too much of is left out and counted; a process that has ended well is no error; an empty box is a trace.
func TestOTLPBounds(t *testing.T) {
	c := killed()
	c.Closed = c.Created.Add(time.Minute)
	c.Live.Sites = slices.Repeat(c.Live.Sites[1:], mostSites+4)
	c.Proxies = slices.Repeat(c.Proxies[:1], mostProxies+5)
	all := traceOf(c, 0)
	root, omitted := all[0], make(map[string]int64)
	for _, a := range root.Attributes {
		if name, ok := strings.CutSuffix(string(a.Key), "_omitted"); ok {
			omitted[name] = a.Value.AsInt64()
		}
	}
	if len(all) != 1+mostSites+1+mostProxies-1 || omitted["allocator.blackbox.sites"] != 3+4 || omitted["allocator.blackbox.proxies"] != 2+5 {
		t.Errorf("there are %d spans, and omitted are %v", len(all), omitted)
	}
	if root.Status.Description != "" || root.EndTime != c.Closed || len(root.Events) != 0 || root.DroppedEvents != 3 {
		t.Errorf("the root is %+v", root)
	}
	if root := traceOf(c, -1)[0]; len(root.Events) != 3 || root.DroppedEvents != 0 {
		t.Errorf("of all events the root has %d", len(root.Events))
	}
	if all := traceOf(new(blackbox.Contents), -1); len(all) != 1 || all[0].EndTime.Sub(all[0].StartTime) != noLength {
		t.Errorf("of an empty box there are %+v", all)
	}
}

// leakVariable has the test binary be a program that leaks, and is the path of its box.
const leakVariable = "ALLOCTRACE_TEST_LEAK"

func leakUntilKilled(path string) error {
	profile := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true})
	box, err := blackbox.Create(path, blackbox.Options{Profile: profile})
	if err != nil {
		return err
	}
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"), alloctrace.WithHooks(profile, box))
	box.Watch(mem)
	b, err := mem.Allocate(blockalloc.BlockLayout(64))
	if err = errors.Join(err, mem.Free(b), leaks(mem.Child("cache"))); err != nil {
		return err
	}
	box.Flush()
	fmt.Println("leaked")
	select {}
}

//go:noinline
func leaks(mem blockalloc.Allocator) error {
	for range 3 {
		if _, err := mem.Allocate(blockalloc.BlockLayout(4096)); err != nil {
			return err
		}
	}
	return nil
}

// killedBox returns the path of the box of a process that has leaked and was killed.
func killedBox(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command(os.Args[0], "-test.list=^$").CombinedOutput(); err != nil {
		t.Skipf("this program cannot start itself: %v\n%s", err, out)
	}
	path := filepath.Join(t.TempDir(), "server.box")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), leakVariable+"="+path)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if strings.Contains(errOut.String(), errors.ErrUnsupported.Error()) {
		t.Skip(errOut.String())
	}
	if err != nil {
		t.Fatalf("the program says %q: %v\n%s", line, err, &errOut)
	}
	return path
}

// checkKilled looks for the leak in the trace of the process.
func checkKilled(t *testing.T, spans jaegertest.Trace) {
	t.Helper()
	const site = "live: alloctrace.leaks"
	var root jaegertest.Span
	for _, s := range spans {
		if s.ParentID == "" {
			root = s
		}
	}
	if len(spans) != 4 || root.StatusCode != 2 || !strings.HasPrefix(root.StatusMessage, "not closed") || root.Attributes["allocator.memory.live"] != int64(3*4096) {
		t.Errorf("there are %d spans, and the root is %+v", len(spans), root)
	}
	live := spans.Named(site)
	if len(live) != 1 {
		t.Fatalf("there are %d spans of %q among %+v", len(live), site, spans)
	}
	stack, _ := live[0].Attributes["code.stacktrace"].(string)
	if !strings.HasPrefix(stack, scopeName+".leaks\n\t") || !strings.Contains(stack, scopeName+".leakUntilKilled\n\t") {
		t.Errorf("the stack of the leak is\n%s", stack)
	}
	if a := live[0].Attributes; a["allocator.memory.live"] != int64(3*4096) || a["allocator.memory.live_blocks"] != int64(3) || a["allocator.child"] != "cache" || live[0].ParentID != root.SpanID {
		t.Errorf("the leak is %+v", live[0])
	}
}

// TestOTLPOfKilled: the trace of a process that was killed has the leak, and opens in a real Jaeger: its user interface posts an uploaded
// file to /api/transform.
func TestOTLPOfKilled(t *testing.T) {
	box, file := killedBox(t), filepath.Join(t.TempDir(), "trace.json")
	var out, errOut bytes.Buffer
	for _, args := range [][]string{{"blackbox", "-otlp", file, box}, {"blackbox", "-otlp", "-", box}} {
		if status := run(args, &out, &errOut); status != whole {
			t.Fatalf("%q exits with %d: %s", args, status, &errOut)
		}
	}
	trace := jaegertest.Trace(jaegertest.ReadFile(t, file))
	checkKilled(t, trace)
	written, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(out.Bytes(), written) {
		t.Errorf("%v: the file has\n%s\nand the standard output\n%s", err, written, &out)
	}

	t.Run("Jaeger", func(t *testing.T) {
		j := jaegertest.Start(t)
		var transformed struct {
			Data []struct {
				Spans []struct{ OperationName string }
			}
		}
		if err := json.Unmarshal(post(t, j.QueryURL()+"/api/transform", written), &transformed); err != nil || len(transformed.Data) != 1 || len(transformed.Data[0].Spans) != len(trace) {
			t.Errorf("%v: an upload has %+v", err, transformed)
		}
		post(t, j.HTTPEndpoint()+"/v1/traces", written)
		service, _ := trace[0].Resource["service.name"].(string)
		if service == "" || !slices.Contains(j.Services(), service) {
			t.Errorf("Jaeger has the services %q, and not %q", j.Services(), service)
		}
		checkKilled(t, j.Trace(trace[0].TraceID, len(trace)))
	})
}

// post returns the answer.
func post(t *testing.T, url string, body []byte) []byte {
	t.Helper()
	resp, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v: %s answers %s: %.500s", err, url, resp.Status, answer)
	}
	return answer
}
