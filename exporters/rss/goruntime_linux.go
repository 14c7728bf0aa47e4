package rss

import (
	"runtime/metrics"
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
	heap := heapRange(maps)
	var list []blockalloc.Mapping
	for _, m := range maps {
		if m.name == "" && (m.end <= heap.start || heap.end <= m.start) {
			list = append(list, blockalloc.Mapping{Addr: m.start, Size: m.end - m.start})
		}
	}
	at.ranges, at.besideHeap = union(list), besideHeap()
	return at
}()

// heapRange returns where the Go heap is: the mappings without a name that follow on
// each other, and one of which has an object of the heap in it. The runtime takes address
// space for the heap where what it has ends, far from where the kernel maps what others ask
// for.
func heapRange(maps []mapping) (heap mapping) {
	object := uintptr(unsafe.Pointer(unsafe.SliceData(maps)))
	for i, m := range maps {
		if m.start > object || object >= m.end {
			continue
		}
		first, last := i, i
		for first > 0 && maps[first-1].end == maps[first].start && maps[first-1].isHeapName() {
			first--
		}
		for last+1 < len(maps) && maps[last+1].start == maps[last].end && maps[last+1].isHeapName() {
			last++
		}
		return mapping{start: maps[first].start, end: maps[last].end}
	}
	return mapping{}
}

func (m *mapping) isHeapName() bool {
	return m.name == "" || strings.HasPrefix(m.name, goNames+"heap")
}

// besideHeap returns how much memory the Go runtime has beside the heap, in bytes, by its
// own account, whether that is resident or not.
func besideHeap() (bytes int64) {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	bytes = int64(samples[0].Value.Uint64())
	for _, s := range samples[1:] {
		bytes -= int64(s.Value.Uint64())
	}
	return bytes
}
