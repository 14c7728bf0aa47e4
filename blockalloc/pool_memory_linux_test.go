//go:build !race

package blockalloc_test

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/process"
)

// ownProcess runs the calling test again in a process of its own, so that no other
// test's memory is counted, and returns true there. In the calling process it reports
// how that went.
func ownProcess(t *testing.T) bool {
	t.Helper()
	const variable = "ALLOCTRACE_TEST_PROCESS"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	if process.Emulated() {
		t.Log("emulated: the process's figures are those of the emulator")
		return false
	}
	t.Parallel()
	var out []byte
	var err error
	for range 3 { // the Go runtime ends the process if it needs memory itself while there is none
		cmd := process.Again(t, variable+"="+t.Name())
		cmd.Args = append(cmd.Args, fmt.Sprintf("-test.short=%t", testing.Short()))
		if out, err = cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("fatal error: runtime: cannot allocate memory")) {
			break
		}
	}
	switch {
	case err == nil && bytes.Contains(out, []byte("--- PASS: "+t.Name())):
		t.Logf("%s", out)
	case err == nil && bytes.Contains(out, []byte("--- SKIP: "+t.Name())) && !allModes:
		t.Skipf("%s", out)
	default:
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// resident returns how much memory the process has, in bytes: counted page by page where
// the kernel does so.
func resident(t *testing.T) int64 {
	t.Helper()
	if _, err := os.Stat("/proc/self/smaps_rollup"); err == nil {
		return kilobytes(t, "/proc/self/smaps_rollup", "Rss")
	}
	return measure.Resident(t)
}

// status returns a field of /proc/self/status, in bytes.
func status(t *testing.T, field string) int64 {
	t.Helper()
	return kilobytes(t, "/proc/self/status", field)
}

func kilobytes(t *testing.T, file, field string) int64 {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut("\n"+string(data), "\n"+field+":")
	var n int64
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatalf("%s in %s: %v", field, file, err)
	}
	return n << 10
}

// counterError returns by how many bytes the kernel's own count of a process's memory can
// be off: since Linux 6.2 each processor keeps a batch of it to itself.
func counterError() int64 {
	n := runtime.NumCPU()
	return int64(n * max(32, 2*n) * os.Getpagesize())
}

// mappings counts the mappings of the process.
func mappings(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(data, []byte("\n"))
}

// slackBytes is what else a process may come to have during a test: the Go heap, stacks and page tables.
const slackBytes = 8 << 20

// TestPoolMapsFew: 6,000 live blocks of 64 KiB with all their pages, or 200,000 of 16 KiB, half
// of them then freed at random, take few mappings. After Trim the process has the
// memory of the live ones, and after Close no more memory and address space than at the
// start.
func TestPoolMapsFew(t *testing.T) {
	if !ownProcess(t) {
		return
	}
	size, n := 64<<10, 20_000
	if testing.Short() {
		n = 3_000
	} else if bits.UintSize == 32 {
		n = 8_000
	} else if allModes {
		size, n = max(16<<10, os.Getpagesize()), 200_000
		if room, want := kilobytes(t, "/proc/meminfo", "MemAvailable"), int64(n*size)*4/3; room < want {
			n = int(room * 3 / 4 / int64(size))
			t.Logf("of %d MiB only %d are there: %d blocks instead of 200,000", want>>20, room>>20, n)
		}
	}
	var p blockalloc.Pool
	page := os.Getpagesize()
	blocks := make([]blockalloc.Block, n)
	clear(blocks) // resident from now on
	order := rand.New(rand.NewPCG(1, 1)).Perm(n)
	most := mappings(t)
	startVirtual := virtualAtStart(t)
	startResident := resident(t)
	touch := func(b blockalloc.Block, i int) {
		for at := 0; at < size; at += page {
			b.Bytes()[at], b.Bytes()[at+1] = byte(i), 1
		}
	}
	count := func(i int) {
		if i%(n/20) == 0 {
			most = max(most, mappings(t))
		}
	}
	near := func(what string, got, want int64) {
		t.Helper()
		t.Logf("%s: grown by %d B, live %d B, %d mappings", what, got, want, mappings(t))
		if got < want*9/10 || got > want*11/10+slackBytes {
			t.Errorf("%s: the process has grown by %d B, want %d within 10 %%", what, got, want)
		}
	}
	for i := range blocks {
		b, err := p.Allocate(blockalloc.BlockLayout(uintptr(size)))
		if err != nil {
			t.Fatal(err)
		}
		blocks[i] = b
		touch(b, i)
		count(i)
	}
	near("all live", resident(t)-startResident, int64(n*size))
	for i, at := range order[:n/2] {
		if err := p.Free(blocks[at]); err != nil {
			t.Fatal(err)
		}
		count(i)
	}
	near("half freed", resident(t)-startResident, int64((n-n/2)*size)+p.Stats().Cached)
	if err := p.Trim(); err != nil {
		t.Fatal(err)
	}
	count(0)
	near("trimmed", resident(t)-startResident, int64((n-n/2)*size))
	for _, at := range order[n/2:] {
		b := blocks[at]
		for i := 0; i < size; i += page {
			if b.Bytes()[i] != byte(at) || b.Bytes()[i+1] != 1 {
				t.Fatalf("block %d has lost its content", at)
			}
		}
	}
	for i, at := range order[:n/2] { // the freed ones are of use again
		b, err := p.Allocate(blockalloc.BlockLayout(uintptr(size)))
		if err != nil {
			t.Fatal(err)
		}
		blocks[at] = b
		touch(b, at)
		count(i)
	}
	near("all live again", resident(t)-startResident, int64(n*size))
	for _, at := range order {
		if err := p.Free(blocks[at]); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range []func() error{p.Trim, p.Close} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
		what := []string{"trimmed, none live", "closed"}[i]
		near(what, resident(t)-startResident, 0)
		if left := measure.Virtual(t) - startVirtual; left > runtimeMaps {
			t.Errorf("%s: the process has grown by %d B of address space", what, left)
		}
	}
	if most = max(most, mappings(t)); most >= 1000 {
		t.Errorf("the process had %d mappings, want less than 1,000", most)
	}
}

// TestPoolKeepsLittle: what a process has never goes beyond what was live at the peak, MaxCached and a
// sixteenth of what is carved, whatever the sequence of sizes. That is also what a memory
// cgroup counts. Soon after all blocks are freed it is no more than MaxCached.
func TestPoolKeepsLittle(t *testing.T) {
	if !ownProcess(t) {
		return
	}
	const maxCached, live = 8 << 20, 16 << 20
	p := blockalloc.Pool{MaxCached: maxCached}
	page := uintptr(os.Getpagesize())
	start, carved, most := resident(t), int64(0), int64(0)
	rnd := rand.New(rand.NewPCG(3, 3))
	for round := range 3 {
		for size := page; size <= 8<<20; size *= 2 {
			n := max(1, live/int(size)/(1+round))
			blocks := make([]blockalloc.Block, n)
			for i := range blocks {
				b, err := p.Allocate(blockalloc.BlockLayout(size))
				if err != nil {
					t.Fatal(err)
				}
				for at := uintptr(0); at < size; at += page {
					b.Bytes()[at] = 1
				}
				blocks[i] = b
			}
			carved, most = max(carved, p.Stats().Carved), max(most, resident(t))
			for _, i := range rnd.Perm(n) {
				if err := p.Free(blocks[i]); err != nil {
					t.Fatal(err)
				}
			}
			s := p.Stats()
			if s.Cached > live+maxCached+s.Carved/16 {
				t.Errorf("all %d blocks of %d B are freed: %+v", n, size, s)
			}
		}
	}
	bound := start + live + maxCached + carved/16 + slackBytes
	if most > bound {
		t.Errorf("with all blocks of a size live the process had %d B, want at most %d", most, bound)
	}
	if peak := status(t, "VmHWM"); peak > bound+counterError() { // also in between
		t.Errorf("the process had %d B, want at most %d", peak, bound)
	}
	for s := p.Stats(); s.Cached > maxCached+s.Carved/16; s = p.Stats() {
		time.Sleep(10 * time.Millisecond)
	}
	if grown := resident(t) - start; grown > maxCached+p.Stats().Carved/16+slackBytes {
		t.Errorf("some time after all blocks were freed, the process has grown by %d B: %+v", grown, p.Stats())
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestPoolKeepsWhatIsHot: blocks that are reused all the time keep their memory, rather
// than those that were not used for long.
func TestPoolKeepsWhatIsHot(t *testing.T) {
	for name, runs := range map[string]int{"one run": 1, "some runs": 2} {
		t.Run(name, func(t *testing.T) {
			page := uintptr(os.Getpagesize())
			size := 4 * page
			blocks := make([]blockalloc.Block, runs*blockalloc.PoolRunBlocks(size))
			cold := make([]blockalloc.Block, 1000)
			p := poolOf(t, &blockalloc.Pool{MaxCached: int64(len(cold)) * int64(page)})
			for i := range cold {
				cold[i] = poolAllocate(t, p, blockalloc.BlockLayout(page))
				cold[i].Bytes()[0] = 1
			}
			poolFree(t, p, cold...)
			for round := range 30 {
				kept := 0
				for i := range blocks {
					blocks[i] = poolAllocate(t, p, blockalloc.BlockLayout(size))
					if blocks[i].Bytes()[0] == 1 {
						kept++
					}
					blocks[i].Bytes()[0] = 1
				}
				poolFree(t, p, blocks...)
				if round >= 10 && kept < len(blocks) {
					t.Errorf("round %d: of %d blocks, %d have kept their memory", round, len(blocks), kept)
				}
			}
		})
	}
}

// TestPoolOptionsTake: what System's options ask for is true of the Pool's memory, as the kernel sees it,
// and memory is given back all the same.
func TestPoolOptionsTake(t *testing.T) {
	if !ownProcess(t) {
		return
	}
	for _, test := range []struct {
		option, flag string
		system       *blockalloc.Pool
	}{
		{"HugePages", "hg", &blockalloc.Pool{System: blockalloc.System{HugePages: true}}},
		{"NoDump", "dd", &blockalloc.Pool{System: blockalloc.System{NoDump: true}}},
		{"Lock", "lo", &blockalloc.Pool{System: blockalloc.System{Lock: true}}},
		{"Populate", "", &blockalloc.Pool{System: blockalloc.System{Populate: true}}},
		{"Name", "", &blockalloc.Pool{System: blockalloc.System{Name: "alloctrace pool"}}},
	} {
		t.Run(test.option, func(t *testing.T) {
			const n = 100
			p, start := test.system, resident(t)
			var blocks []blockalloc.Block
			for range n {
				b := poolAllocate(t, p, blockalloc.BlockLayout(64<<10))
				clear(b.Bytes())
				blocks = append(blocks, b)
			}
			reports := p.System.Options()
			if len(reports) != 1 || reports[0].Option != test.option || reports[0].Taken+reports[0].Refused == 0 {
				t.Fatalf("reports %+v", reports)
			}
			for _, b := range []blockalloc.Block{blocks[0], blocks[n-1]} {
				m := mapping(t, b.Addr())
				took := strings.Contains(m["VmFlags"], test.flag)
				if test.option == "Name" {
					took = strings.Contains(m["line"], "alloctrace pool")
				}
				if reports[0].Refused == 0 && !took || reports[0].Taken == 0 && took && test.option != "Populate" {
					t.Errorf("report %+v, but the kernel says %v", reports[0], m)
				}
			}
			poolFree(t, p, blocks[1:]...)
			if err := p.Trim(); err != nil {
				t.Errorf("Trim: %v", err)
			}
			if grown := resident(t) - start; grown > slackBytes && test.option != "Lock" && test.option != "Populate" { // they touch what is yet to be carved
				t.Errorf("after Trim the process has grown by %d B", grown)
			}
			if b := blocks[0].Bytes(); b[0] != 0 || b[len(b)-1] != 0 {
				t.Error("a live block has lost its content")
			}
			poolFree(t, p, blocks[0])
			if err := p.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if grown := resident(t) - start; grown > slackBytes {
				t.Errorf("after Close the process has grown by %d B", grown)
			}
		})
	}
}
