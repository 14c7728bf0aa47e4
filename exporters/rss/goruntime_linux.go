package rss

import (
	"runtime/metrics"
	"slices"
	"strings"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// The names that Go gives its mappings where the kernel lets it.
const (
	goNames    = "[anon: Go: "
	goHeapName = goNames + "heap]"
)

// atStart is what the Go runtime had beside its heap when the package was initialized.
var atStart = func() (at struct {
	ranges     ranges
	besideHeap int64
}) {
	maps, err := readMappings("/proc/self/maps")
	if err != nil {
		return at // then Read fails too
	}
	heap := findHeap(maps)
	var list []blockalloc.Mapping
	for _, m := range maps {
		if m.name == "" {
			list = append(list, blockalloc.Mapping{Addr: m.start, Size: m.end - m.start})
		}
	}
	at.ranges, at.besideHeap = union(list), heap.beside()
	return at
}()

// A goHeap is where the Go heap is.
type goHeap struct {
	start, end uintptr
	mapped     int64 // bytes of it that are
}

// findHeap finds the heap: the mappings without a name that follow on each other, and one of
// which has an object of the heap in it. The runtime takes address space for the heap
// where what it has ends, far from where the kernel maps what others ask for.
func findHeap(maps []mapping) (heap goHeap) {
	object := uintptr(unsafe.Pointer(unsafe.SliceData(maps)))
	i := slices.IndexFunc(maps, func(m mapping) bool { return m.start <= object && object < m.end })
	if i < 0 {
		return heap
	}
	for i > 0 && maps[i-1].end == maps[i].start && maps[i-1].isHeapName() {
		i--
	}
	heap.start, heap.end = maps[i].start, maps[i].start
	for ; i < len(maps) && maps[i].start == heap.end && maps[i].isHeapName(); i++ {
		heap.end = maps[i].end
		if maps[i].writable {
			heap.mapped += int64(maps[i].end - maps[i].start)
		}
	}
	return heap
}

func (m *mapping) isHeapName() bool {
	return m.name == "" || strings.HasPrefix(m.name, goNames+"heap")
}

// beside returns how much memory the Go runtime has beside the heap, in bytes, by its own
// account, whether that is resident or not. What it has in the heap's pages for itself is
// none of it.
func (h *goHeap) beside() int64 {
	total := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(total)
	return int64(total[0].Value.Uint64()) - h.mapped
}
