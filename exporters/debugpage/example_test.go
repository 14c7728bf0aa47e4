package debugpage_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/debugpage"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// The page is beside the program's own pages.
func ExampleHandler() {
	profile := heapprofile.New(heapprofile.Options{Lifetimes: true, Peak: true})
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(profile))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	page := debugpage.Handler(debugpage.Options{Title: "hello"}, mem)
	mux.Handle("GET /debug/alloctrace/", page)
	mux.Handle("POST /debug/alloctrace/", page) // for its buttons

	server := httptest.NewServer(mux)
	defer server.Close()
	for _, path := range []string{"/", "/debug/alloctrace/", "/debug/alloctrace/api/leaks"} {
		r, err := http.Get(server.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		r.Body.Close()
		fmt.Println(path, r.StatusCode, r.Header.Get("Content-Type"))
	}
	// Output:
	// / 200 text/plain; charset=utf-8
	// /debug/alloctrace/ 200 text/html; charset=utf-8
	// /debug/alloctrace/api/leaks 200 application/json
}
