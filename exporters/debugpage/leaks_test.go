package debugpage

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// TestSlowLeak: of many sites that go up and down by chance none is suspicious, and one that leaks small blocks is, however little that is beside them.
// So is one that grows while it frees.
func TestSlowLeak(t *testing.T) {
	const sites, held, leaked = 200, 40, 20
	profile := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctest.New(t, alloctest.WithAllocator(new(blockalloc.Heap)), alloctest.WithProxy(alloctrace.WithHooks(profile)))
	r := rand.New(rand.NewPCG(2, 3))
	type block struct {
		by *alloctrace.Proxy
		blockalloc.Block
	}
	allocate := func(p *alloctrace.Proxy, size int) block {
		b, err := p.Allocate(blockalloc.Layout{Size: uintptr(size), Align: 8})
		if err != nil {
			t.Fatal(err)
		}
		return block{p, b}
	}
	free := func(b block) {
		if err := b.by.Free(b.Block); err != nil {
			t.Error(err)
		}
	}
	children, leaks, grows := make([]*alloctrace.Proxy, sites), mem.Child("leaks"), mem.Child("grows")
	live := make([]block, sites*held)
	var kept []block
	defer func() {
		for _, b := range append(live, kept...) {
			free(b)
		}
	}()
	for i := range children {
		children[i] = mem.Child(fmt.Sprint("site", i))
	}
	l := newLive(Options{Profile: profile}, []*alloctrace.Proxy{mem})
	for n := range 3 * len(live) {
		i := n
		if n >= len(live) { // all are there
			i = r.IntN(len(live))
			free(live[i])
		}
		live[i] = allocate(children[i%sites], 64+r.IntN(8000))
		if n == len(live) {
			l.marking()
		}
		if n > len(live) && n%(2*len(live)/leaked) == 0 {
			kept = append(kept, allocate(leaks, 24))
			for k := range 4 {
				if b := allocate(grows, 100); k == 0 {
					free(b)
				} else {
					kept = append(kept, b)
				}
			}
		}
	}
	found := l.leaks()
	tables := names{*l.book.Tables(page.Known{})}
	for row, site := range found.Site {
		of := tables.Texts[tables.Sites.Owner[site]]
		want := map[string]int{"leaks": 3, "grows": 2}[of]
		if found.Suspicion[row] != want && (want > 0 || found.Suspicion[row] > 1) {
			t.Errorf("the suspicion of %s, which has %d bytes more, %d less, and can vary by %d, is %d, want %d", of, found.Added[row], found.Freed[row], found.Noise[row], found.Suspicion[row], want)
		}
		if of == "leaks" && (row != 0 || found.Added[row] < (leaked-1)*24 || found.Noise[row] != 0) {
			t.Errorf("what leaks is row %d, with %d bytes more, and can vary by %d", row, found.Added[row], found.Noise[row])
		}
	}
}
