package tracehttp_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

func Example() {
	mem := alloctrace.Wrap(blockalloc.Default())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pages/{name}", func(w http.ResponseWriter, r *http.Request) {
		page := mem.Child("pages").WithContext(r.Context())
		block, err := page.Allocate(blockalloc.BlockLayout(4096))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInsufficientStorage)
			return
		}
		defer page.Free(block)
		fmt.Fprintf(w, "for this request: %d bytes", tracer.FromContext(r.Context()).Stats().AllocatedBytes)
	})
	handler := tracehttp.NewMiddleware(mem)(mux)

	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/pages/1", nil))
	fmt.Println(w.Body)
	// Output: for this request: 4096 bytes
}
