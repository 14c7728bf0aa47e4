// Pprof serves an off-heap profile.
package main

import (
	"net/http/httptest"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/pprof"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

func main() {
	profile := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(profile))
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		panic(err)
	}
	w := httptest.NewRecorder()
	pprof.Handler(profile).ServeHTTP(w, httptest.NewRequest("GET", "/debug/pprof/offheap", nil))
	if w.Code != 200 || w.Body.Len() == 0 || mem.Free(b) != nil {
		panic(w.Body.String())
	}
}
