package debugpage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// A slow is a Source that counts what it is asked, and takes its time.
type slow struct {
	takes          time.Duration
	first          time.Duration // takes the first answer, and the first Tick
	panics         int64         // the Tick that does
	ticks, answers atomic.Int64
	watched        atomic.Int64 // how often somebody began to look, less how often nobody did any more
}

func (s *slow) Answer(ctx context.Context, q page.Query) (any, error) {
	if s.answers.Add(1) == 1 {
		time.Sleep(s.first)
	}
	time.Sleep(s.takes)
	switch q.N {
	case 13:
		return nil, fmt.Errorf("api/%s: no", q.What)
	case 14:
		panic("an allocator of the user's")
	}
	return &page.Error{Error: fmt.Sprint(s.answers.Load())}, ctx.Err()
}

func (s *slow) Tick() *page.Tick {
	n := s.ticks.Add(1)
	if n == 1 {
		time.Sleep(s.first)
	}
	time.Sleep(s.takes)
	if n == s.panics {
		panic("an allocator of the user's")
	}
	return &page.Tick{AtUS: n, Whole: true, Node: []int{0, 1}, NodeLive: []int64{n, 7}, NodeAllocated: []int64{n, 7}, NodeBlocks: []int64{1, 1}, NodePeak: []int64{n, 7}, NodeFailures: []int64{0, 0}, Site: []int{4}, SiteLive: []int64{n / 2}, SiteAllocated: []int64{3}}
}

func (s *slow) Watched(is bool) {
	if is {
		s.watched.Add(1)
	} else {
		s.watched.Add(-1)
	}
}

// look requests a stream until ctx is done, and returns what it was sent.
func look(ctx context.Context, h http.Handler) string {
	r := httptest.NewRequestWithContext(ctx, "GET", "/api/stream", nil)
	r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Body.String()
}

func ask(h http.Handler, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// ticksOf returns the events of a stream that are Ticks.
func ticksOf(stream string) []string {
	return slices.DeleteFunc(strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n"), func(event string) bool { return event == "event: alive\ndata: 0" })
}

// TestAlive: who looks at a program whose Ticks are rare is told that it is there.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{takes: time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		stream := look(ctx, newServer(s, page.Access{}))
		if all, ticks := strings.Count(stream, "\n\n"), len(ticksOf(stream)); ticks != 2 || all < 60 || all > 64 {
			t.Errorf("%d events were sent in five minutes, and %d of them are Ticks, want one in five seconds and 2", all, ticks)
		}
	})
}

// TestNobodyLooks: what a page does is none of the program's cost before somebody looks, and after.
func TestNobodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{panics: 5}
		before := runtime.NumGoroutine()
		h := newServer(s, page.Access{})
		time.Sleep(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second+time.Millisecond)
		defer cancel()
		look(ctx, h)
		synctest.Wait()
		if n := s.ticks.Load(); n != 91 || s.watched.Load() != 0 {
			t.Errorf("%d ticks in 90 seconds, want one at once and one a second; watched is %d", n, s.watched.Load())
		}
		for _, path := range []string{"/api/map", "/api/page", "/api/map"} {
			ask(h, path)
		}
		time.Sleep(time.Hour)
		if n, after := s.ticks.Load(), runtime.NumGoroutine(); n != 91 || after > before || len(h.answers.kept) != 0 {
			t.Errorf("%d ticks when nobody looks, %d goroutines more, %d answers kept", n-91, after-before, len(h.answers.kept))
		}
		if s.answers.Load() != 3 {
			t.Errorf("%d answers were made, want 3", s.answers.Load())
		}
	})
}

// TestManyLook: four cost what one does, and each kind of answer takes a five-hundredth of a processor at most.
func TestManyLook(t *testing.T) {
	for takes, want := range map[time.Duration]struct{ ticks, answers int64 }{
		0:                     {300, 300}, // a second each
		20 * time.Millisecond: {30, 30},   // ten seconds each
		2 * time.Second:       {2, 2},     // the first one does not say what later ones take
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &slow{takes: takes}
			h := newServer(s, page.Access{})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			last := time.Now().Add(5*time.Minute - time.Second/4) // for when nobody looks any more, nothing is kept
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() { look(ctx, h) })
				all.Go(func() {
					for time.Now().Before(last) {
						if w := ask(h, "/api/blocks"); w.Code != http.StatusOK {
							t.Errorf("%d %s", w.Code, w.Body)
						}
						time.Sleep(time.Second / 2)
					}
				})
			}
			all.Wait()
			near := func(n, want int64) bool { return n >= want-want/10-1 && n <= want+want/50+1 }
			if ticks, answers := s.ticks.Load(), s.answers.Load(); !near(ticks, want.ticks) || !near(answers, want.answers) {
				t.Errorf("if they take %v, there were %d ticks and %d answers in five minutes, want about %d and %d", takes, ticks, answers, want.ticks, want.answers)
			}
			if busy := time.Duration(s.ticks.Load()+s.answers.Load()) * takes; busy > 2*(5*time.Minute/answerShare+2*takes) {
				t.Errorf("if they take %v, that was %v of five minutes", takes, busy)
			}
		})
	}
}

// TestFirstFindsNames: the first answer and the first Tick take long, for they find the names of sites. Later ones do not, and so they are not late.
func TestFirstFindsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{first: 3 * time.Second, takes: time.Millisecond}
		h := newServer(s, page.Access{})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() { look(ctx, h) })
		synctest.Wait()
		for ctx.Err() == nil {
			ask(h, "/api/snapshot")
			time.Sleep(5 * time.Second) // as the page does
		}
		all.Wait()
		if ticks, answers := s.ticks.Load(), s.answers.Load(); ticks < 16 || answers != 4 {
			t.Errorf("in 20 seconds there were %d ticks and %d answers, want 16 and 4", ticks, answers)
		}
	})
}

// TestChanges: who adds up the changes of a stream has what a whole Tick says, whenever it began.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(slow)
		h := newServer(s, page.Access{})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second+time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 2300 * time.Millisecond)
				var at int64
				nodes, sites := map[int]int64{}, map[int]int64{}
				events := ticksOf(look(ctx, h))
				for n, event := range events {
					var tick page.Tick
					if err := json.Unmarshal([]byte(strings.TrimPrefix(event, "event: tick\ndata: ")), &tick); err != nil {
						t.Errorf("%q: %v", event, err)
						return
					}
					if tick.Whole != (n == 0) || n > 0 && (tick.AtUS != at+1 || len(tick.Node) != 1 || len(tick.Site) != int(tick.AtUS+1)%2) {
						t.Errorf("event %d after %d: %+v", n, at, tick)
					}
					at = tick.AtUS
					for row, node := range tick.Node {
						nodes[node] = tick.NodeLive[row]
					}
					for row, site := range tick.Site {
						sites[site] = tick.SiteLive[row]
					}
				}
				if want := (map[int]int64{0: at, 1: 7}); at != 21 || !maps.Equal(nodes, want) || !maps.Equal(sites, map[int]int64{4: at / 2}) {
					t.Errorf("looker %d has %v and %v at %d, want %v", i, nodes, sites, at, want)
				}
			})
		}
		all.Wait()
	})
}

// TestErrorsAreNotKept: who asks again after an error gets another answer.
func TestErrorsAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(slow)
		h := newServer(s, page.Access{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { look(ctx, h) })
		synctest.Wait()
		for range 3 {
			if w := ask(h, "/api/blocks?n=13"); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "api/blocks: no") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
		if w := ask(h, "/api/blocks?n=14"); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "it panicked: an allocator") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for n := range 100 {
			ask(h, fmt.Sprintf("/api/blocks?n=%d", 100+n))
		}
		if s.answers.Load() != 104 || len(h.answers.kept) != maxAnswers {
			t.Errorf("%d answers were made, and %d kept", s.answers.Load(), len(h.answers.kept))
		}
		cancel()
		all.Wait()
	})
}

// TestStreamOutlivesWriteTimeout: the stream of a server goes on after its WriteTimeout, and does not keep it from shutting down.
func TestStreamOutlivesWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newServer(new(slow), page.Access{Remote: true, Hosts: []string{"pipe"}})
		client, conn := net.Pipe()
		defer client.Close()
		server := &http.Server{Handler: h, WriteTimeout: 5 * time.Second}
		ended := make(chan error)
		go func() { ended <- server.Serve(&one{conn: conn, done: make(chan struct{})}) }()
		go func() { _, _ = client.Write([]byte("GET /api/stream HTTP/1.1\r\nHost: pipe\r\n\r\n")) }()
		down := make(chan error, 1)
		events := 0
		for lines := bufio.NewScanner(client); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "data: ") {
				events++
			}
			if events == 60 {
				events++
				go func() { down <- errors.Join(server.Shutdown(t.Context()), server.Shutdown(t.Context())) }()
			}
		}
		if events < 61 || events > 62 {
			t.Errorf("the stream ended after %d events, want 60", events)
		}
		if err := errors.Join(<-down); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != http.ErrServerClosed {
			t.Error(err)
		}
		synctest.Wait()
		if h.hub.lookers != 0 {
			t.Errorf("%d look at a stream that has ended", h.hub.lookers)
		}
	})
}

// TestShutdownAtOnce: a server that shuts down as soon as somebody has a stream ends it.
func TestShutdownAtOnce(t *testing.T) {
	h := Handler(Options{}, alloctrace.Wrap(new(blockalloc.Heap)))
	var server *httptest.Server
	shutdown := sync.OnceFunc(func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // it does not wait for the stream
		_ = server.Config.Shutdown(ctx)
	})
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(flushed{w, shutdown}, r)
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/api/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the stream has not ended: %v", err)
	}
}

// flushed calls before before each flush.
type flushed struct {
	http.ResponseWriter
	before func()
}

func (f flushed) Flush() {
	f.before()
	_ = http.NewResponseController(f.ResponseWriter).Flush()
}

// one is a listener of one connection.
type one struct {
	conn net.Conn
	done chan struct{}
	once sync.Once
}

func (o *one) Accept() (net.Conn, error) {
	if c := o.conn; c != nil {
		o.conn = nil
		return c, nil
	}
	<-o.done
	return nil, net.ErrClosed
}
func (o *one) Close() error   { o.once.Do(func() { close(o.done) }); return nil }
func (o *one) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// TestLookersAtOnce: streams and answers while children come and go.
func TestLookersAtOnce(t *testing.T) {
	profile := heapprofile.New(heapprofile.Options{Rate: 1, Lifetimes: true, Peak: true})
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(profile)))
	server := httptest.NewServer(Handler(Options{Profile: profile}, mem))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var all, looking sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				child := mem.Child(fmt.Sprint("child", n%5))
				b, err := child.Allocate(blockalloc.BlockLayout(64))
				if err == nil {
					err = child.Free(b)
				}
				if err == nil {
					err = child.Close()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 4 {
		looking.Go(func() {
			r, err := http.Get(server.URL + "/api/stream")
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			if line, err := bufio.NewReader(r.Body).ReadBytes('\n'); err != nil || !bytes.Equal(line, []byte("event: tick\n")) {
				t.Errorf("%q: %v", line, err)
			}
			for _, what := range []string{"page", "snapshot", "tables", "blocks", "lifetimes", "leaks", "between?from=0&to=1000"} {
				r, err := http.Get(server.URL + "/api/" + what)
				if err != nil {
					t.Error(err)
					return
				}
				if r.Body.Close(); r.StatusCode != http.StatusOK {
					t.Errorf("%s: %s", what, r.Status)
				}
			}
		})
	}
	looking.Wait()
	cancel()
	all.Wait()
}
