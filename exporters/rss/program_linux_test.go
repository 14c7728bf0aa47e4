//go:build !race && !msan && !asan

// The detectors take memory of their own, which nobody here could account for.

package rss_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/rss"
)

const mib = 1 << 20

func init() { program = writeOutcome }

func writeOutcome() {
	if err := json.NewEncoder(os.Stdout).Encode(run()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// An outcome is what was read before and after the program took its untracked memory.
type outcome struct {
	Before, After       rss.Report
	RollupBefore, Total int64 // the kernel's own sums
	Probe               int64 // of its bytes, which were only read, are in memory
}

// What the program has, in bytes.
const (
	inGo      = 48 * mib
	goUnused  = 32 * mib // of Go's heap, never written to
	inPool    = 64 * mib
	poolRead  = 24 * mib // only read: the kernel's page of zeros, or pages of their own
	inSystem  = 16 * mib
	onHeap    = 8 * mib
	untracked = 64 * mib
	onlyRead  = 16 * mib // of untracked memory
	probe     = 4 * mib
)

var kept [][]byte

func run() (o outcome) {
	o.Probe = probeReads()
	pool, system, heap := new(blockalloc.Pool), new(blockalloc.System), new(blockalloc.Heap)
	cache := alloctrace.Wrap(pool, alloctrace.WithName("cache"))
	big := alloctrace.Wrap(blockalloc.NewLocked(system), alloctrace.WithName("big"))
	gos := alloctrace.Wrap(heap, alloctrace.WithName("on Go's heap"))
	for i := range (inPool + poolRead) / mib {
		b := allocate(cache, mib)
		if i < inPool/mib {
			touch(b)
		} else {
			look(b)
		}
	}
	touch(allocate(big, inSystem))
	touch(allocate(gos, onHeap))
	for range inGo / mib {
		kept = append(kept, make([]byte, mib))
		touch(kept[len(kept)-1])
	}
	kept = append(kept, make([]byte, goUnused))
	read := func() rss.Report {
		r, err := rss.Read(cache, big, gos)
		check(err)
		return r
	}
	read()
	runtime.GC()
	o.RollupBefore = rollup()
	o.Before = read()
	mem, err := unix.Mmap(-1, 0, untracked+onlyRead, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	check(err)
	touch(mem[:untracked])
	look(mem[untracked:])
	o.After = read()
	o.Total = rollup()
	return o
}

func allocate(a blockalloc.Allocator, size uintptr) []byte {
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 1})
	check(err)
	return b.Bytes()
}

func touch(mem []byte) {
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = 1
	}
}

var seen byte

// look reads each page of mem. Where reads are to be private, it does what a kernel does that
// gives a page of its own to what is only read.
func look(mem []byte) {
	if os.Getenv(child) == privateReads {
		touch(mem)
		return
	}
	for i := 0; i < len(mem); i += os.Getpagesize() {
		seen += mem[i]
	}
}

// probeReads finds out what the kernel does with what is only read: it returns how much of a
// mapping, to which no other can be joined, is then in memory.
func probeReads() (resident int64) {
	page := os.Getpagesize()
	all, err := unix.Mmap(-1, 0, probe+2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	check(err)
	defer unix.Munmap(all)
	mem := all[page : page+probe]
	check(unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE))
	look(mem)
	smaps, err := os.ReadFile("/proc/self/smaps")
	check(err)
	start := uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
	_, after, ok := strings.Cut(string(smaps), fmt.Sprintf("%08x-%08x rw-p", start, start+probe))
	if !ok {
		panic("the mapping is not in smaps")
	}
	return rssOf([]byte(after))
}

// rssOf returns the first figure of that name in text, in bytes.
func rssOf(text []byte) int64 {
	kib, err := strconv.ParseInt(string(regexp.MustCompile(`(?m)^Rss: +(\d+) kB$`).FindSubmatch(text)[1]), 10, 64)
	check(err)
	return kib << 10
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// rollup returns the resident memory as the kernel sums it up.
func rollup() int64 {
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	check(err)
	return rssOf(text)
}

// TestProgram compares what is told of a program with what it has, on this kernel and on one
// that gives pages of their own to what is only read.
func TestProgram(t *testing.T) {
	for _, reads := range []string{"as the kernel has it", privateReads} {
		t.Run(reads, func(t *testing.T) { testProgram(t, reads) })
	}
}

func testProgram(t *testing.T, reads string) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	// The runtime has memory for each processor, and garbage as it is told to.
	cmd.Env = append(os.Environ(), child+"="+reads, "GOMAXPROCS=2", "GOGC=100", "GOMEMLIMIT=off", "GODEBUG=")
	cmd.Stderr = t.Output()
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var o outcome
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	t.Logf("of %d bytes that are only read %d are in memory", probe, o.Probe)
	if reads == privateReads && o.Probe != probe {
		t.Fatal("want all of them")
	}
	// read returns how much is in memory of size bytes that are only read.
	read := func(size int64) int64 { return size * o.Probe / probe }
	t.Log(o.Before, "\n", o.After)
	for when, r := range map[string]struct {
		rss.Report
		rollup, untracked int64
	}{"before": {o.Before, o.RollupBefore, 0}, "after": {o.After, o.Total, untracked + read(onlyRead)}} {
		within := r.RSS / 50
		near := func(what string, got, want int64) {
			t.Helper()
			if got < want-within || got > want+within {
				t.Errorf("%s: %s is %d, want %d within 2 %% of RSS, %d", when, what, got, want, within)
			}
		}
		near("RSS", r.RSS, r.rollup)
		near("Go heap", r.GoHeap, inGo+onHeap)
		near("tracked", r.Tracked, inPool+read(poolRead)+inSystem)
		near("unattributed", r.Unattributed, r.untracked)
		if sum := r.Go() + r.Tracked + r.Files + r.Unattributed; sum != r.RSS {
			t.Errorf("%s: the parts add up to %d, want %d", when, sum, r.RSS)
		}
		var rest int64
		for _, m := range r.Rest {
			rest += m.Resident
		}
		if rest != r.Unattributed {
			t.Errorf("%s: the mappings have %d, want %d", when, rest, r.Unattributed)
		}
		for i, want := range []rss.Allocator{
			{Name: "cache", Live: inPool + poolRead, Resident: inPool + read(poolRead)},
			{Name: "big", Live: inSystem, Resident: inSystem, Reserved: inSystem},
			{Name: "on Go's heap", Live: onHeap, Resident: onHeap, Reserved: onHeap},
		} {
			got := r.Allocators[i]
			near("resident of "+want.Name, got.Resident, want.Resident)
			if i == 0 {
				want.Reserved = max(got.Reserved, want.Live)
			}
			want.Resident = got.Resident
			if got != want {
				t.Errorf("%s: %+v, want %+v", when, got, want)
			}
		}
	}
	if rest := o.After.Rest[0]; rest.Resident < untracked+read(onlyRead)-o.After.RSS/50 || rest.Resident > untracked+read(onlyRead)+mib || rest.Name != "" {
		t.Errorf("it is not shown: %+v", rest)
	}
}
