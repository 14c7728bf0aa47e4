package rss

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

const kib = 1 << 10

// TestNamed reads what a kernel says that names anonymous mappings.
func TestNamed(t *testing.T) {
	maps, err := readMappings("testdata/named.smaps")
	if err != nil {
		t.Fatal(err)
	}
	early := atStart.ranges
	atStart.ranges = ranges{{Addr: 0x73000000, Size: 256 * kib}} // somebody's without a name
	defer func() { atStart.ranges = early }()
	var r Report
	r.sum(maps, nil, nil)
	want := Report{
		RSS:          (512 + 64 + 96 + 640 + 1536 + 100 + 1024 + 128 + 32 + 48 + 12 + 8) * kib,
		GoHeap:       1536 * kib,
		GoOther:      (100 + 12) * kib,
		Files:        (512 + 64 + 96 + 32 + 8) * kib,
		Unattributed: (640 + 1024 + 128 + 48) * kib,
		Rest: []Mapping{
			{0x72000000, 1 << 20, 1024 * kib, "/memfd:shared memory (deleted)"},
			{0x10500000, 2 << 20, 640 * kib, "[heap]"},
			{0x73000000, 256 * kib, 128 * kib, ""},
			{0x73050000, 64 * kib, 48 * kib, ""},
		},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("\n%+v\nwant\n%+v", r, want)
	}
}

// TestUnnamed reads of the same process what a kernel says that does not.
func TestUnnamed(t *testing.T) {
	maps, err := readMappings("testdata/named.smaps")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maps {
		if strings.HasPrefix(maps[i].name, goNames) {
			maps[i].name = ""
		}
	}
	before := atStart
	defer func() { atStart = before }()
	atStart.ranges = ranges{{Addr: 0x71000000, Size: 1 << 20}}
	atStart.besideHeap = new(goHeap).beside() - 200*kib
	var r Report
	r.sum(maps, nil, nil)
	more := r.GoOther - (100+12)*kib
	if more < 200*kib { // and what the runtime has got meanwhile
		t.Errorf("the Go runtime has %d more beside its heap, want 200 KiB or more", more)
	}
	if want := (640+1536+1024+128+48)*kib - more; r.Unattributed != want || r.GoHeap != 0 {
		t.Errorf("%+v: want %d unattributed", r, want)
	}
	for _, m := range r.Rest {
		if m.Resident < 640*kib && m.Name != "[heap]" {
			t.Errorf("%+v: want it taken from the smallest", r.Rest)
		}
	}
}

// TestFindHeap looks for the heap among mappings around a real object.
func TestFindHeap(t *testing.T) {
	const page = 1 << 12
	maps := make([]mapping, 9)
	at := uintptr(unsafe.Pointer(unsafe.SliceData(maps))) &^ (page - 1)
	for i := range maps {
		maps[i] = mapping{start: at + uintptr(i-4)*page, end: at + uintptr(i-3)*page}
	}
	maps[0].end -= page / 2 // a gap
	maps[7].name = "/lib/libc.so.6"
	maps[3].name = "[anon: Go: heap reservation]"
	maps[2].writable, maps[4].writable, maps[8].writable = true, true, true
	if got, want := findHeap(maps), (goHeap{at - 3*page, at + 3*page, 2 * page}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := findHeap(maps[:4]); got != (goHeap{}) {
		t.Errorf("%+v, where the object is not", got)
	}
}

// TestMalformed reads what is no smaps.
func TestMalformed(t *testing.T) {
	for _, text := range []string{"7f00 rw-p 0 0 0", "7f00-zz rw-p 0 0 0", "7f00-8000 rw-p", "\n", "7f00-8000 rw-p 0 0:0 0\nRss: many kB"} {
		name := t.TempDir() + "/smaps"
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if maps, err := readMappings(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %+v, %v", text, maps, err)
		}
	}
	if _, err := readMappings(t.TempDir() + "/smaps"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestUnion compares ranges with sets of addresses.
func TestUnion(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var list []blockalloc.Mapping
		var in [256]bool
		for range rnd.IntN(12) {
			m := blockalloc.Mapping{Addr: uintptr(rnd.UintN(200)), Size: uintptr(rnd.UintN(40))}
			list = append(list, m)
			for a := m.Addr; a < m.Addr+m.Size; a++ {
				in[a] = true
			}
		}
		before := slices.Clone(list)
		u := union(list)
		if !slices.Equal(list, before) {
			t.Fatalf("union changed its argument: %v, was %v", list, before)
		}
		for i := range u[min(1, len(u)):] {
			if u[i].Addr+u[i].Size >= u[i+1].Addr {
				t.Fatalf("%v: ranges %d and %d meet", u, i, i+1)
			}
		}
		start := uintptr(rnd.UintN(200))
		end := start + uintptr(rnd.UintN(56))
		var got [256]bool
		for from, to := range u.within(start, end) {
			for ; from < to; from++ {
				got[from] = true
			}
		}
		total := int64(0)
		for a, is := range in {
			if is {
				total++
			}
			if want := is && uintptr(a) >= start && uintptr(a) < end; got[a] != want {
				t.Fatalf("seed %d: %v: address %d from %d to %d: %v, want %v", seed, u, a, start, end, got[a], want)
			}
		}
		if u.size() != total {
			t.Fatalf("%v has size %d, want %d", u, u.size(), total)
		}
	}
}

// foreign is an allocator that has no Mapper.
type foreign struct{ blockalloc.Allocator }

// TestAssumed reads of allocators that have no Mapper, one of which
// has more than there can be.
func TestAssumed(t *testing.T) {
	const live = 32 << 20
	mem := alloctrace.Wrap(foreign{new(blockalloc.System)}, alloctrace.WithName("foreign"))
	b, err := mem.Allocate(blockalloc.Layout{Size: live, Align: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Free(b)
	for i := 0; i < live; i += os.Getpagesize() {
		b.Bytes()[i] = 1
	}
	counted := new(counter.Counter)
	counted.Allocate(3<<28, 1<<30) // a quarter is slack
	r, err := Read(mem, counted)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Allocator{"foreign", live, 0, live, live, true}); r.Allocators[0] != want {
		t.Errorf("%+v, want %+v", r.Allocators[0], want)
	}
	rest := r.Tracked - live
	if want := (Allocator{"*counter.Counter", 1 << 30, 1 << 28, 1 << 30, rest, true}); r.Allocators[1] != want {
		t.Errorf("%+v, want %+v", r.Allocators[1], want)
	}
	if r.Unattributed != 0 || len(r.Rest) != 0 || r.Go()+r.Tracked+r.Files != r.RSS {
		t.Errorf("%+v: the parts do not add up", r)
	}
	if !strings.Contains(r.String(), "≤ 32 MiB") {
		t.Error(r)
	}
}

// TestAssumedRest: what is assumed leaves the mappings in order.
func TestAssumedRest(t *testing.T) {
	r := Report{
		Unattributed: 60, Rest: []Mapping{{Resident: 30}, {Resident: 20}, {Resident: 10}},
		Allocators: []Allocator{{Live: 5}, {Live: 25, Assumed: true}},
	}
	r.assume()
	if want := []Mapping{{Resident: 20}, {Resident: 10}, {Resident: 5}}; !slices.Equal(r.Rest, want) || r.Unattributed != 35 || r.Tracked != 25 {
		t.Errorf("%+v, want the mappings %+v", r, want)
	}
}

// TestShared reads of two Proxies on one Pool, and of none.
func TestShared(t *testing.T) {
	pool := new(blockalloc.Pool)
	defer pool.Close()
	a, b := alloctrace.Wrap(pool), alloctrace.Wrap(blockalloc.NewLocked(pool), alloctrace.WithName("b"))
	for _, mem := range []*alloctrace.Proxy{a, b} {
		block, err := mem.Allocate(blockalloc.BlockLayout(1 << 20))
		if err != nil {
			t.Fatal(err)
		}
		defer mem.Free(block)
		clear(block.Bytes())
	}
	r, err := Read(a, b)
	if err != nil {
		t.Fatal(err)
	}
	first, second := r.Allocators[0], r.Allocators[1]
	if first.Name != "Proxy" || first.Live != 1<<20 || first.Resident < 2<<20 || second.Resident != first.Resident || second.Reserved != first.Reserved {
		t.Errorf("%+v, %+v", first, second)
	}
	if r.Tracked > first.Resident {
		t.Errorf("tracked %d, of %d that are resident", r.Tracked, first.Resident)
	}
	systems := []*alloctrace.Proxy{alloctrace.Wrap(new(blockalloc.System)), alloctrace.Wrap(new(blockalloc.System))}
	for _, mem := range systems {
		block, err := mem.Allocate(blockalloc.BlockLayout(1 << 20))
		if err != nil {
			t.Fatal(err)
		}
		defer mem.Free(block)
		clear(block.Bytes())
	}
	if r, err = Read(systems[0], systems[1]); err != nil || r.Tracked != 2<<20 {
		t.Errorf("of two Systems: %+v, %v", r, err)
	}
	if r, err = Read(); err != nil || r.Tracked != 0 || r.RSS == 0 {
		t.Errorf("of nothing: %+v, %v", r, err)
	}
	defer func() {
		if r, want := recover(), "rss: Read: source 1 is nil: pass a Proxy or another counter.Source"; r != want {
			t.Errorf("it panics with %v, want %s", r, want)
		}
	}()
	_, _ = Read(a, nil)
}

// TestFile reads of an allocator in the middle of a file that is mapped twice.
func TestFile(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(dir + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 4 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	var mem []byte
	for range 2 {
		if mem, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(mem)
		for i := 0; i < size; i += os.Getpagesize() {
			mem[i] = 1
		}
	}
	fixed, err := blockalloc.NewFixed(mem[1<<20 : 3<<20])
	if err != nil {
		t.Fatal(err)
	}
	r, err := Read(alloctrace.Wrap(fixed))
	rest := r.Files
	if strings.HasPrefix(dir, "/dev/shm/") { // where files are memory
		rest = r.Unattributed
	}
	if err != nil || r.Tracked != 2<<20 || rest < 6<<20 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestUglyNames reads of allocators and of mappings of all ugly names.
func TestUglyNames(t *testing.T) {
	before := atStart
	defer func() { atStart = before }()
	atStart.besideHeap = math.MaxInt64 / 2 // nothing is taken off the mappings for an estimate
	const size = 1 << 16
	var sources []counter.Source
	for _, u := range texttest.Table() {
		sources = append(sources, alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithName(u.Text)))
		if strings.ContainsRune(u.Text, 0) || len(u.Text) > 200 {
			continue // no name of a mapping
		}
		fd, err := unix.MemfdCreate(u.Text, unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Ftruncate(fd, size); err != nil {
			t.Fatal(err)
		}
		mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(mem)
		unix.Close(fd)
		for i := 0; i < size; i += os.Getpagesize() {
			mem[i] = 1
		}
	}
	r, err := Read(sources...)
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range texttest.Table() {
		if got, want := r.Allocators[i].Name, cmp.Or(text.Name(u.Text), "Proxy"); got != want {
			t.Errorf("%s: the name is %q, want %q", u.Case, got, want)
		}
	}
	for _, u := range texttest.Table() {
		if strings.ContainsRune(u.Text, 0) || len(u.Text) > 200 {
			continue
		}
		want := text.Name("/memfd:" + strings.ReplaceAll(u.Text, "\n", `\012`) + " (deleted)") // as the kernel escapes it
		if !slices.ContainsFunc(r.Rest, func(m Mapping) bool { return m.Name == want }) {
			t.Errorf("%s: no mapping has the name %q", u.Case, want)
		}
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("it is not the same from JSON: %v", err)
	}
	table := r.String()
	if lines, want := strings.Count(table, "\n"), 3+len(sources)+4+shown; lines != want || !utf8.ValidString(table) || strings.ContainsAny(table, "\x00\x1b\r\u2028") {
		t.Errorf("the table has %d lines, want %d, of plain text: %.4000q", lines, want, table)
	}
}

// TestConcurrent reads while others allocate and free.
func TestConcurrent(t *testing.T) {
	pool := new(blockalloc.Pool)
	defer pool.Close()
	mem := alloctrace.Wrap(pool)
	var done sync.WaitGroup
	for range 3 {
		done.Go(func() {
			for size := range uintptr(200) {
				b, err := mem.Allocate(blockalloc.Layout{Size: 1 + size*4096*8, Align: 1})
				if err != nil {
					t.Error(err)
					return
				}
				clear(b.Bytes())
				if err := mem.Free(b); err != nil {
					t.Error(err)
				}
				if size%16 == 0 {
					pool.Trim()
				}
			}
		})
	}
	for range 2 {
		done.Go(func() {
			for range 20 {
				if r, err := Read(mem); err != nil || r.Go()+r.Tracked+r.Files+r.Unattributed != r.RSS || r.Unattributed < 0 {
					t.Errorf("%+v, %v", r, err)
				}
			}
		})
	}
	done.Wait()
}
