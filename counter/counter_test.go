package counter

import (
	"encoding/json"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"
)

func TestCounterAtRest(t *testing.T) {
	var c Counter
	c.Allocate(4096, 4096)
	c.Allocate(5000, 8192)
	c.Allocate(3, 3)
	c.Reallocate(4096, 10000, 12288)
	c.Free(8192)
	c.Reallocate(3, 0, 0)
	c.FailAllocate()
	c.FailAllocate()
	c.FailReallocate()
	c.FailFree()
	want := Stats{
		Allocations: 3, Reallocations: 2, Frees: 1,
		FailedAllocations: 2, FailedReallocations: 1, FailedFrees: 1,
		RequestedBytes: 4096 + 5000 + 3 + 10000,
		AllocatedBytes: 4096 + 8192 + 3 + 12288,
		FreedBytes:     4096 + 8192 + 3,
		LiveBytes:      12288, LiveBlocks: 1,
		PeakBytes: 12288 + 8192 + 3,
	}
	want.Classes[2] = Class{1, 1}
	want.Classes[12] = Class{1, 1}
	want.Classes[13] = Class{1, 1}
	want.Classes[14] = Class{1, 0}
	if got := c.Stats(); got != want {
		t.Errorf("Stats = %+v\nwant    %+v", got, want)
	}
	if got := c.Stats().Failures(); got != 4 {
		t.Errorf("Failures = %d, want 4", got)
	}
}

// TestCounterSizes counts blocks at the edges of every class.
func TestCounterSizes(t *testing.T) {
	var c Counter
	var bytes, blocks int64
	for i := range 48 {
		for _, size := range []uintptr{1<<(i%31) - 1, 1 << (i % 31), 1<<(i%31) + 1} {
			if size == 0 {
				continue
			}
			c.Allocate(size, size)
			bytes += int64(size)
			blocks++
			s := c.Stats()
			if s.LiveBytes != bytes || s.LiveBlocks != blocks || s.RequestedBytes != bytes {
				t.Fatalf("after a block of %d: %v, want %d bytes in %d blocks", size, s, bytes, blocks)
			}
		}
	}
	var inClasses int64
	for _, class := range c.Stats().Classes {
		inClasses += class.Live()
	}
	if inClasses != blocks {
		t.Errorf("the classes hold %d blocks, want %d", inClasses, blocks)
	}
}

func TestStatsSub(t *testing.T) {
	var c Counter
	c.Allocate(64, 64)
	before := c.Stats()
	c.Allocate(100, 128)
	c.Free(64)
	c.Free(128)
	c.FailFree()
	got := c.Stats().Sub(before)
	want := Stats{
		Allocations: 1, Frees: 2, FailedFrees: 1,
		RequestedBytes: 100, AllocatedBytes: 128, FreedBytes: 192,
		LiveBytes: -64, LiveBlocks: -1, PeakBytes: 192,
	}
	want.Classes[6] = Class{0, 1}
	want.Classes[7] = Class{1, 1}
	if got != want {
		t.Errorf("Sub = %+v\nwant  %+v", got, want)
	}
}

func TestStatsString(t *testing.T) {
	var c Counter
	child := c.Child()
	c.Allocate(64<<10, 64<<10)
	child.Allocate(96<<10, 96<<10)
	child.Free(96 << 10)
	child.FailFree()
	const want = "live 64 KiB in 1 block, peak 160 KiB (at least 96 KiB); 2 allocations, 0 reallocations, 1 free, 1 failure; allocated 160 KiB, freed 96 KiB"
	if got := c.Stats().String(); got != want {
		t.Errorf("String = %s\nwant     %s", got, want)
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1 KiB", 4096: "4 KiB", 1536: "1.5 KiB", 1 << 20: "1 MiB",
		3<<20 + 1<<19: "3.5 MiB", 1 << 40: "1 TiB", -65536: "-64 KiB", -1 << 63: "-8 EiB", 1<<63 - 1: "8 EiB",
	} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestStatsJSON(t *testing.T) {
	var c Counter
	c.Allocate(4096, 4096)
	c.Allocate(5000, 8192)
	c.Free(4096)
	data, err := json.Marshal(c.Stats())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"allocations":2,"reallocations":0,"frees":1,"failed_allocations":0,"failed_reallocations":0,"failed_frees":0,` +
		`"requested_bytes":9096,"allocated_bytes":12288,"freed_bytes":4096,"live_bytes":8192,"live_blocks":1,"peak_bytes":12288,"peak_bound":0,` +
		`"classes":[{"size":4096,"allocated":1,"freed":1},{"size":8192,"allocated":1,"freed":0}]}`
	if string(data) != want {
		t.Errorf("JSON = %s\nwant   %s", data, want)
	}
	var back Stats
	if err := json.Unmarshal(data, &back); err != nil || back != c.Stats() {
		t.Errorf("Unmarshal = %+v, %v; want %+v", back, err, c.Stats())
	}
}

func FuzzClassesJSON(f *testing.F) {
	f.Add(`[{"size":4096,"allocated":1,"freed":1}]`)
	f.Add(`[{"size":999,"allocated":1}]`)
	f.Add(`[{"size":1,"freed":2},{"size":1,"freed":2}]`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, data string) {
		var c Classes
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			if c != (Classes{}) {
				t.Fatalf("a refused list changed the classes: %v", err)
			}
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var back Classes
		if err := json.Unmarshal(again, &back); err != nil || back != c {
			t.Fatalf("%s became %s: %v", data, again, err)
		}
	})
}

// TestChildren checks that a tree adds up, also where a block is freed through
// another node than the one that allocated it.
func TestChildren(t *testing.T) {
	var root Counter
	a, b := root.Child(), root.Child()
	leaf := a.Child()
	root.Allocate(1<<10, 1<<10)
	a.Allocate(1<<11, 1<<11)
	b.Allocate(1<<12, 1<<12)
	leaf.Allocate(1<<13, 1<<13)
	if got := root.Stats().LiveBytes; got != 15<<10 {
		t.Errorf("root: %d live bytes, want %d", got, 15<<10)
	}
	if got := a.Stats().LiveBytes; got != 10<<10 {
		t.Errorf("a: %d live bytes, want %d", got, 10<<10)
	}
	leaf.Free(1 << 13)
	s := root.Stats()
	if s.PeakBytes != 15<<10 || s.PeakBytes-s.PeakBound != 8<<10 {
		t.Errorf("peak %d, at least %d; want %d and %d", s.PeakBytes, s.PeakBytes-s.PeakBound, 15<<10, 8<<10)
	}
	b.Free(1 << 11) // a's block
	b.Free(1 << 12)
	root.Free(1 << 10)
	s = root.Stats()
	if s.LiveBytes != 0 || s.LiveBlocks != 0 || s.FreedBytes != 15<<10 {
		t.Errorf("at the end: %v", s)
	}
	if s.PeakBound != s.PeakBytes {
		t.Errorf("with a foreign free the peak is at least %d, want 0", s.PeakBytes-s.PeakBound)
	}
	if got := b.Stats(); got.LiveBytes != 0 || got.AllocatedBytes-got.FreedBytes != -2<<10 {
		t.Errorf("b freed a block of a: %v; want 0 live and a net of -2 KiB", got)
	}
}

// TestCounterStorm runs 8 goroutines that count random operations, of which each
// holds at most holdMax bytes, while snapshots are taken: each must lie between
// zero and what can be live, totals must never step back, and the end is exact.
func TestCounterStorm(t *testing.T) {
	const workers, holdMax = 8, 11 * (1<<15 + 100)
	steps := 200_000
	if testing.Short() {
		steps = 20_000
	}
	var root Counter
	nodes := []*Counter{&root, root.Child(), root.Child()}
	var storm, watch sync.WaitGroup
	stop := make(chan struct{})
	var want [workers]Stats
	for w := range workers {
		storm.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(w)))
			c := nodes[w%len(nodes)]
			m := &want[w]
			var held []uintptr
			for range steps {
				size := uintptr(1) << rnd.IntN(16)
				if rnd.IntN(4) == 0 {
					size += uintptr(rnd.IntN(100))
				}
				switch last := len(held) - 1; {
				case rnd.IntN(50) == 0:
					c.FailAllocate()
					m.FailedAllocations++
				case last >= 0 && rnd.IntN(10) == 0:
					c.Reallocate(held[last], size, size)
					m.Reallocations++
					m.AllocatedBytes += int64(size)
					m.FreedBytes += int64(held[last])
					held[last] = size
				case last >= 0 && (rnd.IntN(2) == 0 || last > 8):
					c.Free(held[last])
					m.Frees++
					m.FreedBytes += int64(held[last])
					held = held[:last]
				default:
					c.Allocate(size, size)
					m.Allocations++
					m.AllocatedBytes += int64(size)
					held = append(held, size)
				}
			}
			for _, size := range held {
				m.LiveBytes += int64(size)
				m.LiveBlocks++
			}
		})
	}
	watch.Go(func() {
		var last Stats
		for snapshots := 0; ; snapshots++ {
			s := root.Stats()
			if s.LiveBytes < 0 || s.LiveBlocks < 0 || s.LiveBytes > workers*holdMax || s.LiveBlocks > workers*11 {
				t.Errorf("snapshot %d: %v", snapshots, s)
				return
			}
			if s.LiveBytes > s.PeakBytes {
				t.Errorf("snapshot %d: live %d is above the peak %d", snapshots, s.LiveBytes, s.PeakBytes)
				return
			}
			d := s.Sub(last)
			if d.Allocations < 0 || d.Reallocations < 0 || d.Frees < 0 || d.AllocatedBytes < 0 || d.FreedBytes < 0 || d.FailedAllocations < 0 {
				t.Errorf("snapshot %d: totals stepped back: %+v", snapshots, d)
				return
			}
			last = s
			select {
			case <-stop:
				if snapshots == 0 {
					t.Error("no snapshot was taken during the storm")
				}
				return
			default:
			}
		}
	})
	storm.Wait()
	close(stop)
	watch.Wait()
	got := root.Stats()
	var sum Stats
	for _, m := range want {
		sum.Allocations += m.Allocations
		sum.Reallocations += m.Reallocations
		sum.Frees += m.Frees
		sum.FailedAllocations += m.FailedAllocations
		sum.AllocatedBytes += m.AllocatedBytes
		sum.FreedBytes += m.FreedBytes
		sum.LiveBytes += m.LiveBytes
		sum.LiveBlocks += m.LiveBlocks
	}
	sum.RequestedBytes = sum.AllocatedBytes
	sum.PeakBytes, sum.PeakBound, sum.Classes = got.PeakBytes, got.PeakBound, got.Classes
	if got != sum {
		t.Errorf("at rest: %+v\nwant     %+v", got, sum)
	}
}

// TestDocumentedSize holds the doc comment of Counter to its word.
func TestDocumentedSize(t *testing.T) {
	if size := unsafe.Sizeof(Counter{}); size > 4<<10+512 {
		t.Errorf("a Counter has %d bytes; its comment says 4 KiB", size)
	}
}
