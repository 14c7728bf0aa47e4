package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/internal/fields"
)

// A fakePage answers as a page of exporters/debugpage does. Its numbers are those of the next answer.
type fakePage struct {
	mu       sync.Mutex
	id       string
	live     int64             // of app/cache
	at       int64             // seconds, of which each snapshot is one later
	stopped  bool              // the clock
	nodes    int               // that are known
	answers  map[string]string // by name, other ones
	statuses map[string]int
}

func (p *fakePage) set(change func(p *fakePage)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *fakePage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name, ok := strings.CutPrefix(r.URL.Path, "/debug/alloctrace/api/")
	if status := p.statuses[name]; status != 0 {
		w.WriteHeader(status)
	}
	switch answer := p.answers[name]; {
	case answer != "":
		fmt.Fprint(w, answer)
	case !ok:
		http.NotFound(w, r)
	case name == "page":
		fmt.Fprintf(w, `{"id":%q,"title":"server","go":"go1.26.8","pid":4711,"began_ms":946684800000,"rate":4096,"more":1}`, p.id)
	case name == "tables":
		q := r.URL.Query()
		var from [4]int
		for i, of := range []string{"texts", "frames", "sites", "nodes"} {
			_, _ = fmt.Sscan(q.Get(of), &from[i])
		}
		texts := []string{"", "app", "cache", "cafe\u0301 日本\n", "example.com/cache.(*Cache).load", "/src/cache.go", "main.main", "/src/main.go", "new"}
		all := map[string]any{
			"from":   map[string]int{"texts": from[0], "frames": from[1], "sites": from[2], "nodes": from[3]},
			"texts":  texts[from[0]:],
			"frames": map[string]any{"function": []int{4, 6}[from[1]:], "file": []int{5, 7}[from[1]:], "line": []int{88, 9}[from[1]:]},
			"sites":  map[string]any{"owner": []int{2, 0}[from[2]:], "stack": [][]int{{0, 1}, {}}[from[2]:]},
			"nodes":  map[string]any{"parent": []int{-1, 0, 0, 0}[from[3]:p.nodes], "name": []int{1, 2, 3, 8}[from[3]:p.nodes]},
		}
		_ = json.NewEncoder(w).Encode(all)
	case name == "snapshot":
		if !p.stopped {
			p.at++
		}
		rest := int64(2048)
		known := fmt.Sprintf(`{"texts":9,"frames":2,"sites":2,"nodes":%d}`, p.nodes)
		columns := make(map[string]any)
		columns["node"] = []int{0, 1, 2, 3}[:p.nodes]
		columns["live"] = []int64{p.live + rest, p.live, rest, 1}[:p.nodes]
		for i, name := range []string{"live_blocks", "peak", "allocated", "failed_allocations", "failed_reallocations", "failed_frees"} {
			columns[name] = []int64{int64(i), p.live + int64(i), 3, 4}[:p.nodes]
		}
		nodes, _ := json.Marshal(columns)
		fmt.Fprintf(w, `{"known":%s,"at_us":%d,"total":{"live":%d,"live_blocks":3,"peak":1048576,"allocated":%d,"failed_allocations":1,"failed_reallocations":2,"failed_frees":3},
			"nodes":%s,"sites":{"site":[0,1],"live":[%d,5],"live_blocks":[2,1],"allocated":[%d,5]},"rss":null}`, known, p.at*1e6, p.live+rest, p.live*2, nodes, p.live, p.live*2)
	}
}

func newFakePage(t *testing.T) (p *fakePage, at string) {
	p = &fakePage{id: "a", live: 1024, nodes: 3, answers: make(map[string]string), statuses: make(map[string]int)}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return p, s.URL + "/debug/alloctrace"
}

// TestTopOfProgram: without a terminal, top prints tables of a program, as text or JSON.
func TestTopOfProgram(t *testing.T) {
	_, at := newFakePage(t)
	r := &runner{t: t}
	const head = "server, process 4711, go1.26.8, 2000-01-01 00:00:0%d.000 UTC\nlive 3 KiB in 3 blocks, peak 1 MiB, %s, 6 failures\n"
	want := fmt.Sprintf(head, 1, "rate unknown") + `     *LIVE    BLOCKS       PEAK  FAILED NAME
     3 KiB         0        1 B      12 app
     2 KiB         3        3 B       9 app/café 日本\n
     1 KiB      1024      1 KiB    3084 app/cache
`
	if got := r.run(whole, "top", at); got != strings.ReplaceAll(want, "café", "cafe\u0301") {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	got := r.run(whole, "top", "-count", "2", "-interval", "100ms", "-sites", "-n", "1", at+"/?x#y")
	want = fmt.Sprintf(head, 2, "rate unknown") + `sites are estimates: one block was sampled for 4 KiB
     *LIVE    BLOCKS NAME: stack
     1 KiB         2 cache: cache.(*Cache).load (cache.go:88), main.main (main.go:9)
and 1 more

` + fmt.Sprintf(head, 3, "0 B/s allocated") + `sites are estimates: one block was sampled for 4 KiB
     *LIVE      CHANGE    ALLOC/S    BLOCKS NAME: stack
     1 KiB         0 B        0 B         2 cache: cache.(*Cache).load (cache.go:88), main.main (main.go:9)
and 1 more
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	var m liveMoment
	printed := []byte(r.run(whole, "top", "-json", at))
	fields.Compare(t, "testdata/top.txt", fields.Object(t, printed))
	if err := json.Unmarshal(printed, &m); err != nil || m.PID != 4711 || m.Total.Failures != 6 || len(m.Children) != 3 || m.Children[1].Name != "app/cache" || m.Children[1].Live != 1024 ||
		len(m.Sites) != 2 || m.Sites[0].Stack[0].Line != 88 || m.Sites[0].Allocated != 2048 {
		t.Errorf("%v, %+v", err, m)
	}
}

// TestTopOfProgramFails: what is no page, or is wrong, is said in one line.
func TestTopOfProgramFails(t *testing.T) {
	p, at := newFakePage(t)
	r := &runner{t: t}
	for _, args := range [][]string{
		{"-alone", at}, {"-by", "peak", at}, {"-stack", "x", at}, {"-sort", "x", at}, {"-count", "-1", at}, {"-interval", "1ms", at}, {at, at}, {"http:///x"}, {"http://127.0.0.1:1/"}, {strings.TrimSuffix(at, "/debug/alloctrace")},
	} {
		r.run(failed, append([]string{"top"}, args...)...)
	}
	for what, want := range map[string]struct {
		set  func(p *fakePage)
		want string
	}{
		"another server": {func(p *fakePage) { p.answers["page"] = "<html>" }, "api/page: invalid character '<' looking for beginning of value: is this the URL of a page"},
		"a refusal":      {func(p *fakePage) { p.answers["snapshot"], p.statuses["snapshot"] = `{"error":"use a tunnel"}`, 403 }, "api/snapshot: 403 Forbidden: use a tunnel\n"},
		"short columns":  {func(p *fakePage) { p.answers["snapshot"] = `{"nodes":{"node":[0],"live":[]}}` }, "api/snapshot: its columns differ in length\n"},
		"short sites":    {func(p *fakePage) { p.answers["snapshot"] = `{"sites":{"site":[0],"live":[1]}}` }, "api/snapshot: its columns differ in length\n"},
		"other tables":   {func(p *fakePage) { p.answers["tables"] = `{"from":{"texts":7}}` }, "api/tables: it begins at "},
	} {
		p.set(want.set)
		r.run(failed, "top", at)
		if got := r.errOut.String(); !strings.Contains(got, want.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q, want %q", what, got, want.want)
		}
		p.set(func(p *fakePage) { clear(p.answers); clear(p.statuses) })
	}
	p.set(func(p *fakePage) { p.answers["page"], p.statuses["page"] = `{"error":"no\u001b[2J"}`, 401 })
	r.run(failed, "top", strings.Replace(at, "//", "//me:secret@", 1))
	if got := r.errOut.String(); strings.Contains(got, "secret") || strings.Contains(got, "\x1b") || !strings.Contains(got, "me:") {
		t.Errorf("%q", got)
	}
	p.set(func(p *fakePage) { clear(p.answers); clear(p.statuses) })
	r.run(whole, "top", at+"?")
	p.set(func(p *fakePage) {
		p.answers["page"], p.answers["snapshot"] = `{"id":"a","rate":0}`, `{"total":{},"nodes":{},"sites":{}}`
	})
	if got := r.run(whole, "top", "-sites", at); !strings.Contains(got, "no sites are known: add heapprofile.New") {
		t.Errorf("%s", got)
	}
	p.set(func(p *fakePage) { // indexes that name nothing
		p.answers["snapshot"] = `{"nodes":{"node":[7,-1],"live":[1,2],"live_blocks":[1,2],"peak":[1,2],"allocated":[1,2],"failed_allocations":[1,2],"failed_reallocations":[1,2],"failed_frees":[1,2]},"sites":{"site":[9],"live":[1],"live_blocks":[1],"allocated":[1]}}`
	})
	if got := r.run(whole, "top", "-sites", at); !strings.HasSuffix(got, " 1 unknown\n") {
		t.Errorf("%s", got)
	}
}
