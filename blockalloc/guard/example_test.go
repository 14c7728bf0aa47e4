//go:build unix || windows

package guard_test

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
)

// A server goes on after a use after free: the request fails, and the report has who allocated, freed and read the block.
func ExampleAllocator_Catch() {
	out := log.New(os.Stdout, "", 0)
	mem := guard.New(blockalloc.Default(), guard.Options{
		Rate:     1, // every block, for the example; leave it out in production
		OnReport: func(r *debug.Report) { out.Printf("%v at byte %d of %d", r.Kind, r.Offset, r.Block.Layout.Size) },
	})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		page, _ := mem.Allocate(blockalloc.BlockLayout(4096))
		_ = mem.Free(page)
		_, _ = w.Write(page.Bytes()[:1]) // an error
	})
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := mem.Catch(func() { handler.ServeHTTP(w, r) }); errors.Is(err, blockalloc.ErrUseAfterFree) {
			http.Error(w, "internal error", http.StatusInternalServerError)
		}
	})
	response := httptest.NewRecorder()
	guarded.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(response.Code)
	// Output:
	// use after free at byte 0 of 4096
	// 500
}
