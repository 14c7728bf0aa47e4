// Debugpage serves a page of off-heap memory.
package main

import (
	"io"
	"net/http/httptest"
	"strings"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/debugpage"
)

func main() {
	server := httptest.NewServer(debugpage.Handler(debugpage.Options{}, alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("cache"))))
	defer server.Close()
	for _, c := range [][2]string{{"/", "<html"}, {"/app.js", "api/"}, {"/api/snapshot", `"live":0`}, {"/api/tables", `"cache"`}} {
		r, err := server.Client().Get(server.URL + c[0])
		if err != nil {
			panic(err)
		}
		body, err := io.ReadAll(r.Body)
		if r.Body.Close(); err != nil || !strings.Contains(string(body), c[1]) {
			panic(string(body))
		}
	}
}
