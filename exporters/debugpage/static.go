package debugpage

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// dist is the browser side, as web/build.mjs builds it of web/src.
//
//go:embed web/dist/index.html web/dist/app.js web/dist/stream.js web/dist/app.css
var dist embed.FS

// A file is one of dist.
type file struct {
	data, packed []byte // as it is, and gzip'ed
	tag          string
}

var fileTypes = map[string]string{
	"index.html": "text/html; charset=utf-8",
	"app.js":     "text/javascript; charset=utf-8",
	"stream.js":  "text/javascript; charset=utf-8",
	"app.css":    "text/css; charset=utf-8",
}

// files returns the files by their names. They are made when somebody first asks for one.
var files = sync.OnceValue(func() map[string]*file {
	all := make(map[string]*file)
	for name := range fileTypes {
		data, err := dist.ReadFile("web/dist/" + name)
		if err != nil { // they are embedded by their names
			panic(fmt.Sprintf("debugpage: %v", err))
		}
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, _ = w.Write(data) // a Buffer takes all
		_ = w.Close()
		sum := sha256.Sum256(data)
		all[name] = &file{data, packed.Bytes(), `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
	}
	return all
})

// serveFile serves a file of dist.
func serveFile(w http.ResponseWriter, r *http.Request, name string) {
	f := files()[name]
	h := w.Header()
	h.Set("Content-Type", fileTypes[name])
	h.Set("Cache-Control", "no-cache") // ask whether it is another one
	h.Set("Etag", f.tag)
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writePacked(w, r, f.packed)
}

// writePacked writes gzip'ed data, or what it is of if the client does not take that, or what is in front of the handler packs it.
func writePacked(w http.ResponseWriter, r *http.Request, packed []byte) {
	w.Header().Set("Vary", "Accept-Encoding")
	if takesGzip(r) && w.Header().Get("Content-Encoding") == "" {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", fmt.Sprint(len(packed)))
		_, _ = w.Write(packed) // the client has gone
		return
	}
	if plain, err := gzip.NewReader(bytes.NewReader(packed)); err == nil {
		_, _ = io.Copy(w, plain) // the client has gone
	}
}

// takesGzip reports whether a client takes gzip'ed answers.
func takesGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(coding), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q = strings.TrimSpace(q)
			return !strings.HasPrefix(q, "q=0") || strings.Trim(q, "q=0.") != ""
		}
	}
	return false
}
