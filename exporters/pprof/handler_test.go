package pprof

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// pipes is a listener of connections in memory, whose deadlines follow a bubble's clock.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.conns <- server
	return client, nil
}

// inBubble serves h with the server's timeouts on a bubble's clock, and returns what is answered
// to GET requests.
func inBubble(t *testing.T, server *http.Server, f func(t *testing.T, get func(query string) (status int, body []byte, err error))) {
	synctest.Test(t, func(t *testing.T) {
		listener := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		ended := make(chan error)
		go func() { ended <- server.Serve(listener) }()
		transport := &http.Transport{DialContext: listener.dial, Protocols: server.Protocols}
		defer func() {
			transport.CloseIdleConnections()
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; err != http.ErrServerClosed {
				t.Error(err)
			}
		}()
		f(t, func(query string) (int, []byte, error) {
			response, err := (&http.Client{Transport: transport}).Get("http://pipe/?" + query)
			if err != nil {
				return 0, nil, err
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			return response.StatusCode, body, err
		})
	})
}

// TestTimeouts: a profile of a minute arrives whole from a server whose timeouts are some
// seconds, and what cannot is refused at once.
func TestTimeouts(t *testing.T) {
	h := Handler(heapprofile.New(heapprofile.Options{Rate: 1}))
	var http1, http2 http.Protocols
	http1.SetHTTP1(true)
	http2.SetUnencryptedHTTP2(true)
	// plain hides what the ResponseWriter can do, and wrapped shows it again.
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(struct{ http.ResponseWriter }{w}, r) })
	wrapped := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(unwrapper{w}, r) })
	for _, c := range []struct {
		name        string
		handler     http.Handler
		write, read time.Duration
		seconds     string
		refusal     string // "" if there is a profile
	}{
		{"no timeouts", h, 0, 0, "60", ""},
		{"WriteTimeout", h, 10 * time.Second, 0, "60", ""},
		{"ReadTimeout", h, 0, 10 * time.Second, "60", ""},
		{"both", h, 10 * time.Second, 5 * time.Second, "60", ""},
		{"both, fraction", h, 10 * time.Second, 5 * time.Second, "12.5", ""},
		{"wrapped", wrapped, 10 * time.Second, 5 * time.Second, "60", ""},
		{"plain, no timeouts", plain, 0, 0, "60", ""},
		{"plain, enough time", plain, 10 * time.Second, 10 * time.Second, "9", ""},
		{"plain, WriteTimeout", plain, 10 * time.Second, 0, "10",
			"seconds=10: the server's WriteTimeout is 10s, and the http.ResponseWriter, a struct { http.ResponseWriter }, cannot extend it: use fewer seconds, a longer WriteTimeout, or give that type an Unwrap method"},
		{"plain, ReadTimeout", plain, 0, 10 * time.Second, "60", ""},
		{"TimeoutHandler", http.TimeoutHandler(h, 10*time.Second, "too long"), 0, 0, "60",
			"seconds=60: the request has to end in 10s: use fewer seconds, or a longer timeout"},
		{"TimeoutHandler, enough time", http.TimeoutHandler(h, 10*time.Second, "too long"), 0, 0, "9", ""},
	} {
		for name, protocols := range map[string]*http.Protocols{"HTTP 1": &http1, "HTTP 2": &http2} {
			t.Run(c.name+", "+name, func(t *testing.T) {
				inBubble(t, &http.Server{Handler: c.handler, WriteTimeout: c.write, ReadTimeout: c.read, Protocols: protocols}, func(t *testing.T, get func(string) (int, []byte, error)) {
					start := time.Now()
					status, body, err := get("seconds=" + c.seconds)
					if c.refusal != "" {
						if want := "offheap profile: " + c.refusal + "\n"; status != http.StatusBadRequest || string(body) != want || err != nil || time.Since(start) != 0 {
							t.Errorf("%d, %v, after %v: %s\nwant %s", status, err, time.Since(start), body, want)
						}
						return
					}
					wait, e := time.ParseDuration(c.seconds + "s")
					if e != nil {
						t.Fatal(e)
					}
					if status != http.StatusOK || err != nil {
						t.Fatalf("%d, %v, after %v: %s", status, err, time.Since(start), body)
					}
					if p := parse(t, body); p.DurationNanos != wait.Nanoseconds() {
						t.Errorf("a profile of %d ns, want of %v", p.DurationNanos, wait)
					}
					if status, _, err := get(""); status != http.StatusOK || err != nil { // on the same connection
						t.Errorf("the next request: %d, %v", status, err)
					}
				})
			})
		}
	}
}

type unwrapper struct{ http.ResponseWriter }

func (u unwrapper) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// TestWriteTimeout is one of TestTimeouts with a real connection and clock.
func TestWriteTimeout(t *testing.T) {
	if !requireAll {
		t.Skip("it takes seconds: set ALLOCTRACE_REQUIRE_ALL=1")
	}
	server := httptest.NewUnstartedServer(Handler(heapprofile.New(heapprofile.Options{Rate: 1})))
	server.Config.WriteTimeout, server.Config.ReadTimeout = 2*time.Second, 2*time.Second
	server.Start()
	defer server.Close()
	if p := parse(t, get(t, server.URL+"?seconds=2.5")); p.DurationNanos < 2.5e9 {
		t.Errorf("a profile of %d ns, want of 2.5 s", p.DurationNanos)
	}
}

// TestClientGone: the handler ends when the client goes away, for Close waits for it.
func TestClientGone(t *testing.T) {
	serving := make(chan bool)
	h := Handler(heapprofile.New(heapprofile.Options{Rate: 1}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serving <- true
		h.ServeHTTP(w, r)
		if r.Context().Err() == nil {
			t.Errorf("%s was answered", r.URL)
		}
	}))
	defer server.Close()
	for _, query := range []string{"seconds=3600", "seconds=3600&combined=1"} {
		ctx, cancel := context.WithCancel(t.Context())
		request, err := http.NewRequestWithContext(ctx, "GET", server.URL+"?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		gone := make(chan error)
		go func() {
			response, err := http.DefaultClient.Do(request)
			if err == nil {
				response.Body.Close()
			}
			gone <- err
		}()
		<-serving
		cancel()
		if err := <-gone; err == nil {
			t.Errorf("%s was answered", query)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, query := range []string{"", "seconds=3600", "combined=1", "debug=1"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/?"+query, nil))
		if w.Body.Len() != 0 {
			t.Errorf("%q: who has gone away gets %d bytes", query, w.Body.Len())
		}
	}
}

// TestAtOnce: requests of all kinds at once do not disturb each other, nor the program.
func TestAtOnce(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
	kept := cachePages(t, mem)
	url := serve(t, p)
	var wg sync.WaitGroup
	for range 2 {
		for _, query := range []string{"", "debug=1", "combined=1", "seconds=0.02", "seconds=0.02&combined=1"} {
			wg.Go(func() {
				response, err := http.Get(url + "?" + query)
				if err != nil {
					t.Error(err)
					return
				}
				defer response.Body.Close()
				body, err := io.ReadAll(response.Body)
				if err != nil || response.StatusCode != http.StatusOK {
					t.Errorf("%s: %s, %v: %s", query, response.Status, err, body)
				}
				want := 4096.0
				if strings.Contains(query, "seconds") {
					want = 0
				}
				taken := parse(t, body)
				if query == "debug=1" {
					return // go tool pprof finds no names in it
				}
				if got := of(taken, "cachePages"); got[3] != want {
					t.Errorf("%s: cachePages has %v in use, want %v", query, got[3], want)
				}
			})
		}
	}
	for range 100 {
		if err := mem.Free(parseRows(t, mem)); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if err := mem.Free(kept); err != nil {
		t.Error(err)
	}
}

// TestHead: HEAD has the headers and the errors of GET, at once and without a body.
func TestHead(t *testing.T) {
	url := serve(t, heapprofile.New(heapprofile.Options{Rate: 1}))
	for _, c := range []struct {
		query, contentType string
		status             int
	}{
		{"", "application/octet-stream", 200},
		{"seconds=3600", "application/octet-stream", 200},
		{"combined=1", "application/octet-stream", 200},
		{"debug=1", "text/plain; charset=utf-8", 200},
		{"seconds=-1", "text/plain; charset=utf-8", 400},
	} {
		response, err := http.Head(url + "?" + c.query)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || len(body) != 0 || response.StatusCode != c.status || response.Header.Get("Content-Type") != c.contentType || response.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%q: %s, %v, %d bytes, %v", c.query, response.Status, err, len(body), response.Header)
		}
	}
}

func TestBadRequests(t *testing.T) {
	h := Handler(heapprofile.New(heapprofile.Options{Rate: 1}))
	const seconds = ": use a number above 0, up to 3600"
	const apart = "debug is for text, which is of off-heap memory alone: leave out combined"
	for query, want := range map[string]string{
		"seconds=soon":                         "seconds=soon" + seconds,
		"seconds=0":                            "seconds=0" + seconds,
		"seconds=-1":                           "seconds=-1" + seconds,
		"seconds=NaN":                          "seconds=NaN" + seconds,
		"seconds=Inf":                          "seconds=Inf" + seconds,
		"seconds=1e9":                          "seconds=1e9" + seconds,
		"seconds=1e999":                        "seconds=1e999" + seconds,
		"seconds=1e-99":                        "seconds=1e-99" + seconds,
		"seconds=30s":                          "seconds=30s" + seconds,
		"seconds=a%0Ab%FF":                     `seconds=a\nb` + "\ufffd" + seconds,
		"combined=heap":                        "combined=heap: use 1 for Go's heap profile too, or 0",
		"debug=yes":                            "debug=yes: use 1 for text, or 0",
		"debug=-1":                             "debug=-1: use 1 for text, or 0",
		"debug=1&seconds=1&combined=1":         apart,
		"debug=1&combined=1":                   apart,
		"seconds=1;combined=1":                 `query seconds=1;combined=1: invalid semicolon separator in query: escape it as URLs are`,
		"seconds=%zz":                          `query seconds=%zz: invalid URL escape "%zz": escape it as URLs are`,
		"seconds=" + strings.Repeat("9", 1000): "seconds=" + strings.Repeat("9", maxValue-3) + "…" + seconds,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/?"+query, nil))
		if w.Code != http.StatusBadRequest || w.Body.String() != "offheap profile: "+want+"\n" {
			t.Errorf("%s: %d, %q\nwant %q", query, w.Code, w.Body, want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader("seconds=1")))
	if want := "offheap profile: method POST: use GET or HEAD\n"; w.Code != http.StatusMethodNotAllowed || w.Body.String() != want || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("%d, %q, Allow %q", w.Code, w.Body, w.Header().Get("Allow"))
	}
	for _, query := range []string{"", "debug=0&combined=0", "debug=2", "combined=true", "seconds=0.001&debug=0", "seconds=", "other=1"} {
		body(t, h, httptest.NewRequest("GET", "/?"+query, nil))
	}
}

// TestTogether: of all sets of parameters those are right that are part of one that goes together. What is to be left out is then enough.
func TestTogether(t *testing.T) {
	all := []string{"pinned=1", "pinned=json", "lifetimes=1", "lifetimes=pprof", "older=1h", "since=2h", "at=peak", "proxy=a", "child=b", "debug=1", "combined=1", "seconds=1"}
	right := [][]string{
		{"pinned=1", "debug=1"}, {"pinned=json"}, {"lifetimes=1"}, {"lifetimes=pprof"}, {"older=1h", "since=2h"}, {"at=peak", "proxy=a", "child=b", "debug=1"},
		{"debug=1", "seconds=1"}, {"combined=1", "seconds=1"},
	}
	for set := range 1 << len(all) {
		var query []string
		names := make(map[string]bool)
		for i, p := range all {
			if set>>i&1 == 1 {
				query = append(query, p)
				names[p[:strings.IndexByte(p, '=')]] = true
			}
		}
		if len(names) < len(query) || (names["proxy"] || names["child"]) && !names["at"] {
			continue // one of the two values would be ignored, or nothing is to be left out; for that see TestBadPeak
		}
		want := slices.ContainsFunc(right, func(set []string) bool {
			return !slices.ContainsFunc(query, func(p string) bool { return !slices.Contains(set, p) })
		})
		_, err := parseOptions(strings.Join(query, "&"), parameters...)
		if (err == nil) != want {
			t.Errorf("%v: %v", query, err)
			continue
		}
		if err != nil {
			_, leave, _ := strings.Cut(err.Error(), ": leave out ")
			left := slices.DeleteFunc(query, func(p string) bool {
				return slices.ContainsFunc(strings.Split(leave, ", "), func(name string) bool { return strings.HasPrefix(p+"=", name+"=") })
			})
			if _, err := parseOptions(strings.Join(left, "&"), parameters...); err != nil {
				t.Errorf("without %s, of what is left: %v", leave, err)
			}
		}
	}
}

// TestErrorShown: go tool pprof shows what was wrong.
func TestErrorShown(t *testing.T) {
	url := serve(t, heapprofile.New(heapprofile.Options{Rate: 1}))
	_, stderr, err := runGoTool(t, "-top", url+"?combined=heap")
	if want := "combined=heap: use 1 for Go's heap profile too, or 0"; err == nil || !strings.Contains(stderr, want) {
		t.Errorf("%v: %s\nwant %s", err, stderr, want)
	}
}
