package jaegertest

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// oneSpan is an OTLP/JSON request with a root span that has an attribute of
// each type, and its failed child.
func oneSpan(service string, start time.Time) (request []byte, want Trace) {
	const id, root, child = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174", "eee19b7ec3c1b175"
	t := start.UnixNano()
	request = fmt.Appendf(nil, `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":%q}}]},
"scopeSpans":[{"scope":{"name":"scope"},"spans":[
{"traceId":%q,"spanId":%q,"name":"root","kind":1,"startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":[
 {"key":"int","value":{"intValue":"9007199254740993"}},{"key":"float","value":{"doubleValue":0.5}},{"key":"bool","value":{"boolValue":true}},
 {"key":"text","value":{"stringValue":"two\nlines €"}},{"key":"list","value":{"arrayValue":{"values":[{"stringValue":"a"},{"intValue":"1"}]}}}]},
{"traceId":%q,"spanId":%q,"parentSpanId":%q,"name":"child","kind":1,"startTimeUnixNano":"%d","endTimeUnixNano":"%d",
 "status":{"code":2,"message":"failed"},"links":[{"traceId":%q,"spanId":%q,"attributes":[{"key":"why","value":{"stringValue":"test"}}]}]}
]}]}]}`, service, strings.ToUpper(id), strings.ToUpper(root), t, t+1001, strings.ToUpper(id), strings.ToUpper(child), strings.ToUpper(root), t+1, t+1000,
		strings.ToUpper(id), strings.ToUpper(root))
	resource := map[string]any{"service.name": service}
	want = Trace{
		{TraceID: id, SpanID: root, Name: "root", Scope: "scope", Start: t, End: t + 1001, Resource: resource, Attributes: map[string]any{
			"int": int64(9007199254740993), "float": 0.5, "bool": true, "text": "two\nlines €", "list": []any{"a", int64(1)}}},
		{TraceID: id, SpanID: child, ParentID: root, Name: "child", Scope: "scope", Start: t + 1, End: t + 1000, Resource: resource,
			StatusCode: 2, StatusMessage: "failed", Attributes: map[string]any{},
			Links: []Link{{id, root, map[string]any{"why": "test"}}}},
	}
	return request, want
}

func wantTrace(t *testing.T, got, want Trace) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("the trace is\n%s\nwant\n%s", g, w)
	}
}

func TestDecode(t *testing.T) {
	request, want := oneSpan("svc", time.Unix(1, 0))
	got, err := Decode(request)
	if err != nil || len(got) != 1 {
		t.Fatalf("%d traces, %v", len(got), err)
	}
	wantTrace(t, got[0], want)
	if named := got[0].Named("child"); len(named) != 1 || named[0].SpanID != want[1].SpanID {
		t.Errorf("Named found %v", named)
	}
	for _, bad := range []string{`{`, `{"resourceSpans":[{"resource":{"attributes":[{"key":"k","value":{}}]}}]}`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("Decode took %s", bad)
		}
	}
}

func TestJaeger(t *testing.T) {
	a, b := startAnyway(t), startAnyway(t) // two can run at once
	request, want := oneSpan("svc", time.Now())
	resp, err := http.Post(a.HTTPEndpoint()+"/v1/traces", "application/json", bytes.NewReader(request))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("Jaeger answered %s", resp.Status)
	}
	wantTrace(t, a.Trace(want[0].TraceID, 2), want)
	found := a.FindTraces("svc")
	if len(found) != 1 {
		t.Fatalf("%d traces found, want 1", len(found))
	}
	wantTrace(t, found[0], want)
	if got := a.Services(); !slices.Equal(got, []string{"svc"}) {
		t.Errorf("services are %q, want svc alone: Jaeger must not trace itself", got)
	}
	if got := b.Services(); len(got) != 0 {
		t.Errorf("the other Jaeger has services %q, want none", got)
	}

	a.Kill()
	a.Kill()
	for _, url := range []string{a.GRPCEndpoint(), a.HTTPEndpoint(), a.QueryURL()} {
		if c, err := net.DialTimeout("tcp", strings.TrimPrefix(url, "http://"), time.Minute); err == nil {
			c.Close()
			t.Errorf("%s still takes connections after Kill", url)
		}
	}
	if got := b.Services(); len(got) != 0 {
		t.Errorf("killing one Jaeger changed the other: services %q", got)
	}
}

// TestRun runs the program that JAEGERTEST_RUN names beside a Jaeger that has the user interface in JAEGER_UI_ASSETS, and does
// nothing if the variable is not set. It is for .ci/screenshots.
func TestRun(t *testing.T) {
	program := os.Getenv("JAEGERTEST_RUN")
	if program == "" {
		return
	}
	j := startAnyway(t, WithUI(os.Getenv("JAEGER_UI_ASSETS")))
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), "JAEGERTEST_RUN=", "JAEGER_URL="+j.QueryURL(), "OTEL_EXPORTER_OTLP_ENDPOINT="+j.HTTPEndpoint())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

func TestWithUI(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("<html><head></head>mine</html>"), 0o666); err != nil {
		t.Fatal(err)
	}
	j := startAnyway(t, WithUI(dir))
	resp, err := http.Get(j.QueryURL() + "/search")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil || !strings.Contains(body.String(), "mine") {
		t.Errorf("the UI is %q (%v), want the page given", body.String(), err)
	}
}
