package debugpage

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
)

// TestAccess: who may ask for what.
func TestAccess(t *testing.T) {
	mem := alloctrace.Wrap(alloctest.New(t)) // without hooks
	strict := Handler(Options{}, mem)
	named := Handler(Options{Hosts: []string{"Debug.example.com", "other.example:8443"}}, mem)
	open := Handler(Options{Remote: true, Hosts: []string{"debug.example.com"}}, mem)
	loopback, unix := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, &net.UnixAddr{Name: "/run/debug", Net: "unix"}
	outside := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 80}
	const here, there = "127.0.0.1:40000", "10.0.0.9:40000"
	for name, c := range map[string]struct {
		h                    http.Handler
		method, path, header string // the header as Name: value, several by a bar
		host, peer           string
		local                net.Addr
		status               int
		says                 string
	}{
		"localhost":                {strict, "GET", "/x/", "", "localhost:8080", here, loopback, 200, "<html"},
		"a name below localhost":   {strict, "GET", "/x/", "", "app.localhost", here, loopback, 200, ""},
		"with a dot":               {strict, "GET", "/x/", "", "LOCALHOST.:80", here, loopback, 200, ""},
		"loopback":                 {strict, "GET", "/x/api/page", "", "127.0.0.1:8080", here, loopback, 200, `"mode":"live"`},
		"another of loopback":      {strict, "GET", "/x/api/page", "", "127.9.9.9", here, loopback, 200, ""},
		"loopback of IPv6":         {strict, "GET", "/x/api/page", "", "[::1]:8080", "[::1]:40000", loopback, 200, ""},
		"loopback without a port":  {strict, "GET", "/x/api/page", "", "[::1]", here, loopback, 200, ""},
		"mapped":                   {strict, "GET", "/x/api/page", "", "localhost", "[::ffff:127.0.0.1]:4", loopback, 200, ""},
		"rebinding":                {strict, "GET", "/x/", "", "evil.example:8080", here, loopback, 403, "Hosts of debugpage.Options"},
		"rebinding of the data":    {strict, "GET", "/x/api/page", "", "evil.example", here, loopback, 403, "another site"},
		"rebinding of a stream":    {strict, "GET", "/x/api/stream", "", "evil.example", here, loopback, 403, "another site"},
		"a name like localhost":    {strict, "GET", "/x/", "", "notlocalhost", here, loopback, 403, `"notlocalhost\"`},
		"an address of elsewhere":  {strict, "GET", "/x/", "", "10.0.0.7", here, loopback, 403, "Host header"},
		"no host":                  {strict, "GET", "/x/", "", "", here, loopback, 403, "Host header"},
		"a host of control":        {strict, "GET", "/x/", "", "a\x00b", here, loopback, 403, "Host header"},
		"a name that was given":    {named, "GET", "/x/", "", "debug.example.com:80", here, loopback, 200, ""},
		"one with its port":        {named, "GET", "/x/", "", "OTHER.example:8443", here, loopback, 200, ""},
		"one with another port":    {named, "GET", "/x/", "", "other.example:8444", here, loopback, 403, "Hosts"},
		"from elsewhere":           {strict, "GET", "/x/", "", "10.0.0.7", there, outside, 403, "ssh -L"},
		"through a proxy":          {strict, "GET", "/x/", "X-Forwarded-For: 9.9.9.9", "localhost", here, loopback, 403, "9.9.9.9, through a proxy"},
		"Forwarded":                {strict, "GET", "/x/", "Forwarded: for=9.9.9.9", "localhost", here, loopback, 403, "Remote"},
		"who is not known":         {strict, "GET", "/x/", "", "localhost", "@", loopback, 403, "comes from @"},
		"a socket":                 {strict, "GET", "/x/", "", "localhost", "@", unix, 200, ""},
		"remote":                   {open, "GET", "/x/", "", "10.0.0.7", there, outside, 200, ""},
		"remote by a proxy":        {open, "GET", "/x/", "X-Forwarded-For: 9.9.9.9", "debug.example.com", there, outside, 200, ""},
		"remote, another address":  {open, "GET", "/x/", "", "10.0.0.8", there, outside, 403, "Host header"},
		"remote, rebinding":        {open, "GET", "/x/", "", "evil.example", there, outside, 403, "Host header"},
		"remote, no address":       {open, "GET", "/x/", "", "10.0.0.7", there, nil, 403, "Host header"},
		"the page's own":           {strict, "GET", "/x/api/page", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors", "localhost", here, loopback, 200, ""},
		"typed":                    {strict, "GET", "/x/", "Sec-Fetch-Site: none|Sec-Fetch-Mode: navigate", "localhost", here, loopback, 200, ""},
		"a link of another site":   {strict, "GET", "/x/", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate", "localhost", here, loopback, 200, ""},
		"a fetch of another site":  {strict, "GET", "/x/api/blocks", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: no-cors", "localhost", here, loopback, 403, "another site"},
		"another port":             {strict, "GET", "/x/api/blocks", "Sec-Fetch-Site: same-site|Sec-Fetch-Mode: cors", "localhost", here, loopback, 403, "another site"},
		"a POST of its own":        {strict, "POST", "/x/api/mark", "Sec-Fetch-Site: same-origin|Origin: http://localhost", "localhost", here, loopback, 404, "heapprofile.New"},
		"a POST by its origin":     {strict, "POST", "/x/api/mark", "Origin: http://localhost", "localhost", here, loopback, 404, "heapprofile.New"},
		"a POST of curl":           {strict, "POST", "/x/api/mark", "", "localhost", here, loopback, 404, "heapprofile.New"},
		"a POST of another site":   {strict, "POST", "/x/api/mark", "Sec-Fetch-Site: cross-site", "localhost", here, loopback, 403, "button"},
		"a POST of another origin": {strict, "POST", "/x/api/unreachable", "Origin: http://evil.example", "localhost", here, loopback, 403, "button"},
		"a POST without an origin": {strict, "POST", "/x/save", "Origin: null", "localhost", here, loopback, 403, "button"},
		"a GET of a button":        {strict, "GET", "/x/api/unreachable", "", "localhost", here, loopback, 405, "use POST"},
		"a POST of an answer":      {strict, "POST", "/x/api/page", "", "localhost", here, loopback, 405, "use GET, HEAD"},
		"another method":           {strict, "DELETE", "/x/", "", "localhost", here, loopback, 405, "use GET"},
		"a wrong path":             {strict, "GET", "/x/nothing", "", "localhost", here, loopback, 404, "ends in /"},
		"a wrong answer":           {strict, "GET", "/x/api/nothing", "", "localhost", here, loopback, 404, "nothing"},
		"no answer":                {strict, "GET", "/x/api/", "", "localhost", here, loopback, 404, "there is no"},
		"a path up":                {strict, "GET", "/x/../web/build.mjs", "", "localhost", here, loopback, 404, "there is no"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "http://host"+c.path, nil)
			r.Host, r.RemoteAddr = c.host, c.peer
			if c.local != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.local))
			}
			for h := range strings.SplitSeq(c.header, "|") {
				if name, value, ok := strings.Cut(h, ": "); ok {
					r.Header.Set(name, value)
				}
			}
			w := httptest.NewRecorder()
			c.h.ServeHTTP(w, r)
			body := w.Body.String()
			if w.Code != c.status || !strings.Contains(body, c.says) {
				t.Errorf("it answers %d %s, want %d and %q", w.Code, body, c.status, c.says)
			}
			if h := w.Result().Header; h.Get("Content-Security-Policy") != policy || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" ||
				h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("X-Frame-Options") != "DENY" || h.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("the headers are %v", h)
			}
			var e page.Error
			if c.status >= 400 && (json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Error == "") {
				t.Errorf("the error is %s", body)
			}
		})
	}
}

// TestPolicy: the browser may load and run what this server has, and nothing else.
func TestPolicy(t *testing.T) {
	const want = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
	if policy != want {
		t.Errorf("the policy is %s, want %s", policy, want)
	}
	index := string(files()["index.html"].data)
	for _, inline := range []string{"<style", " style=", " onload=", " onclick=", "javascript:", "http://", "https://"} {
		if strings.Contains(strings.ReplaceAll(index, "http://www.w3.org/2000/svg", ""), inline) {
			t.Errorf("index.html has %q, which the policy forbids", inline)
		}
	}
}

// TestMounted: the page can be registered beside others, at any path.
func TestMounted(t *testing.T) {
	mem := alloctest.New(t)
	h := Handler(Options{}, mem)
	mux := http.NewServeMux()
	mux.Handle("GET /debug/alloctrace/", h)
	mux.Handle("POST /debug/alloctrace/", h)
	mux.Handle("GET /", http.NotFoundHandler())
	mux.HandleFunc("GET /debug/pprof/", http.NotFound)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	mux.Handle("GET /stripped/", http.StripPrefix("/stripped", h))
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, path := range []string{"/debug/alloctrace", "/debug/alloctrace/", "/debug/alloctrace/app.js", "/debug/alloctrace/app.css", "/debug/alloctrace/api/snapshot", "/stripped/", "/stripped/api/page"} {
		r, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusOK || path == "/debug/alloctrace" && r.Request.URL.Path != path+"/" {
			t.Errorf("%s answers %s at %s", path, r.Status, r.Request.URL)
		}
	}
}

// TestHandlerPanics: a constant that is wrong is a mistake of the program.
func TestHandlerPanics(t *testing.T) {
	for name, of := range map[string][]*alloctrace.Proxy{"none": nil, "nil": {alloctest.New(t), nil}} {
		func() {
			defer func() {
				if s, ok := recover().(string); !ok || !strings.HasPrefix(s, "debugpage: Handler: ") {
					t.Errorf("%s: %v", name, s)
				}
			}()
			Handler(Options{}, of...)
		}()
	}
}
