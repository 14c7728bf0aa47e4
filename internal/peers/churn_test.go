//go:build linux

package peers

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/internal/measure"
)

// churn allocates and frees n buffers of smallest to largest bytes, of which 8 are live at most, and writes to each page.
func churn(s bufferSource, rnd *rand.Rand, n, smallest, largest int) {
	var live [8]buffer
	classes := bits.Len(uint(largest/smallest)) - 1
	for range n {
		b := &live[rnd.IntN(len(live))]
		if b.mem != nil {
			s.put(*b)
		}
		size := smallest << rnd.IntN(classes)
		*b = s.get(size + rnd.IntN(size))
		for i := 0; i < len(b.mem); i += 4096 {
			b.mem[i] = 1
		}
	}
	for _, b := range live {
		if b.mem != nil {
			s.put(b)
		}
	}
}

// TestChurn: buffers that are live at the same time have no byte in common, whatever they come from.
func TestChurn(t *testing.T) {
	for _, kind := range buffers {
		name, s := kind()
		rnd := rand.New(rand.NewPCG(1, 1))
		var live []buffer
		for i := range 64 {
			b := s.get(1 + rnd.IntN(64<<10))
			for j := range b.mem {
				b.mem[j] = byte(i)
			}
			live = append(live, b)
		}
		for i, b := range live {
			for j, got := range b.mem {
				if got != byte(i) {
					t.Fatalf("%s: byte %d of buffer %d, at %p, is another's", name, j, i, unsafe.SliceData(b.mem))
				}
			}
			s.put(b)
		}
	}
}

// BenchmarkChurn prints what a thousand buffers of mixed sizes cost: page faults, and processor time against that of one
// free list a size, which keeps everything.
func BenchmarkChurn(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const rounds, n = 9, 1000
	for b.Loop() {
		fmt.Println()
		for _, largest := range []int{1 << 20, 16 << 20} {
			type subject struct {
				name   string
				s      bufferSource
				rnd    *rand.Rand
				faults []int64
				time   []int64
			}
			var subjects []*subject
			for _, kind := range buffers {
				name, s := kind()
				rnd := rand.New(rand.NewPCG(7, 7))
				churn(s, rnd, n, 1<<10, largest)
				subjects = append(subjects, &subject{name: name, s: s, rnd: rnd})
			}
			for range rounds {
				for _, s := range subjects {
					faults, time := used(b)
					churn(s.s, s.rnd, n, 1<<10, largest)
					faultsAfter, timeAfter := used(b)
					s.faults = append(s.faults, faultsAfter-faults)
					s.time = append(s.time, timeAfter-time)
				}
			}
			median := func(v []int64) float64 {
				slices.Sort(v)
				return float64(v[len(v)/2])
			}
			lists := median(subjects[slices.IndexFunc(subjects, func(s *subject) bool { return s.name == "lists" })].time)
			for _, s := range subjects {
				row := fmt.Sprintf("churn_%dMiB_%s", largest>>20, s.name)
				measure.Row(os.Stdout, b, row+"_faults", median(s.faults), "", measure.NoBound)
				measure.Row(os.Stdout, b, row+"_cpu_over_lists", median(s.time)/lists, "x", measure.NoBound)
			}
		}
	}
}

// used returns the page faults of this thread so far, and the processor time in nanoseconds.
func used(b *testing.B) (faults, time int64) {
	var r unix.Rusage
	var t unix.Timespec
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &r); err != nil {
		b.Fatal(err)
	}
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return r.Minflt, t.Nano()
}
