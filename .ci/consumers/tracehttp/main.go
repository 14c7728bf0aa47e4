// Tracehttp has the requests of an HTTP server as regions.
package main

import (
	"net/http"
	"net/http/httptest"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

func main() {
	mem := alloctrace.Wrap(blockalloc.Default())
	var allocated int64
	handler := tracehttp.NewMiddleware(mem)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := mem.WithContext(r.Context()).Allocate(blockalloc.BlockLayout(4096))
		if err != nil || mem.Free(b) != nil {
			panic(err)
		}
		allocated = tracer.FromContext(r.Context()).Stats().AllocatedBytes
	}))
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if allocated != 4096 {
		panic(allocated)
	}
}
