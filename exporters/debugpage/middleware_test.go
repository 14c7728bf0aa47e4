package debugpage

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
)

// A packer is a ResponseWriter of a middleware that packs all answers, and knows nothing else.
type packer struct {
	http.ResponseWriter
	gzip *gzip.Writer
}

func (p packer) Write(b []byte) (int, error) { return p.gzip.Write(b) }

// TestBehindMiddleware: the page can be used behind what keeps answers until they end, what packs them, a proxy with another path, HTTP/2, and on servers
// that give an answer little time.
func TestBehindMiddleware(t *testing.T) {
	h := Handler(Options{Remote: true}, alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem")))
	pack := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		g := gzip.NewWriter(w)
		defer g.Close()
		h.ServeHTTP(packer{w, g}, r)
	})
	direct := httptest.NewServer(h)
	t.Cleanup(direct.Close)
	target, err := url.Parse(direct.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
		r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, "/team/blue/memory")
	}}
	for name, front := range map[string]http.Handler{
		"http.TimeoutHandler": http.TimeoutHandler(h, 20*time.Second, "too late"), "a middleware that packs": pack, "a proxy": proxy, "nothing": h,
	} {
		for _, http2 := range []bool{false, true} {
			for _, packs := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/http2=%t/packs=%t", name, http2, packs), func(t *testing.T) {
					t.Parallel()
					server := httptest.NewUnstartedServer(front)
					server.EnableHTTP2 = http2
					if name != "a proxy" { // whose own WriteTimeout ends all
						server.Config.WriteTimeout = time.Second
					}
					if http2 {
						server.StartTLS()
					} else {
						server.Start()
					}
					defer server.Close()
					lookThrough(t, server, http2, packs, name == "a middleware that packs", name == "a middleware that packs" || name == "http.TimeoutHandler")
				})
			}
		}
	}
}

// lookThrough asks for an answer and for the stream, which ends at once if something keeps it.
func lookThrough(t *testing.T, server *httptest.Server, http2, packs, packed, kept bool) {
	client := server.Client()
	transport := client.Transport.(*http.Transport).Clone()
	transport.DisableCompression = !packs
	client.Transport = transport
	defer client.CloseIdleConnections()
	ask := func(what string) io.ReadCloser {
		r, err := client.Get(server.URL + "/team/blue/memory/" + what)
		if err != nil {
			t.Fatal(err)
		}
		if http2 != (r.ProtoMajor == 2) || r.StatusCode != http.StatusOK {
			t.Errorf("%s: %s by %s", what, r.Status, r.Proto)
		}
		if packed && !packs { // for those who do not take that, too
			if r.Body, err = gzip.NewReader(r.Body); err != nil {
				t.Fatal(err)
			}
		}
		return r.Body
	}
	body := ask("api/page")
	var p page.Page
	if err := json.NewDecoder(body).Decode(&p); err != nil || p.Mode != page.Live {
		t.Errorf("api/page: %v", err)
	}
	body.Close()
	body = ask("api/stream")
	defer body.Close()
	var stream strings.Builder
	lines := bufio.NewScanner(body)
	for strings.Count(stream.String(), "event: tick\n") < 2 && lines.Scan() {
		stream.WriteString(lines.Text() + "\n")
	}
	if ends := strings.Contains(stream.String(), "event: ends\n"); !strings.Contains(stream.String(), `"whole":true`) || ends != kept || lines.Err() != nil {
		t.Errorf("the stream is %q, and ends with %v", stream.String(), lines.Err())
	}
}
