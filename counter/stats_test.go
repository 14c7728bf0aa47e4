package counter

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestStatsSub(t *testing.T) {
	var c Counter
	c.Allocate(64, 64)
	before := c.Stats()
	c.Allocate(100, 128)
	c.Free(64, 64)
	c.Free(100, 128)
	c.FailFree()
	got := c.Stats().Sub(before)
	want := Stats{
		Allocations: 1, Frees: 2, FailedFrees: 1,
		RequestedBytes: 100, AllocatedBytes: 128, FreedBytes: 192,
		LiveBytes: -64, LiveBlocks: -1, LiveRequestedBytes: -64, PeakBytes: 192,
	}
	want.Classes[6] = Class{0, 1}
	want.Classes[7] = Class{1, 1}
	if got != want {
		t.Errorf("Sub = %+v\nwant  %+v", got, want)
	}
}

// TestStatsSubFields fills two Stats with numbers that all differ, so that no field
// can be left out.
func TestStatsSubFields(t *testing.T) {
	var s, before Stats
	next := int64(0)
	number := func() int64 { next++; return next * next }
	for _, stats := range []*Stats{&before, &s} {
		fields := reflect.ValueOf(stats).Elem()
		for i := range fields.NumField() {
			if f := fields.Field(i); f.Kind() == reflect.Int64 {
				f.SetInt(number())
			}
		}
		for i := range stats.Classes {
			stats.Classes[i] = Class{number(), number()}
		}
	}
	got := s.Sub(before)
	var blocks int64
	for i, class := range got.Classes {
		want := Class{s.Classes[i].Allocated - before.Classes[i].Allocated, s.Classes[i].Freed - before.Classes[i].Freed}
		if class != want {
			t.Errorf("class %d: %+v, want %+v", i, class, want)
		}
		blocks += want.Allocated - want.Freed
	}
	field := func(s Stats, i int) int64 { return reflect.ValueOf(s).Field(i).Int() }
	for i := range reflect.TypeFor[Stats]().NumField() {
		name := reflect.TypeFor[Stats]().Field(i).Name
		var want int64
		switch name {
		case "Classes":
			continue
		case "LiveBytes":
			want = got.AllocatedBytes - got.FreedBytes
		case "LiveBlocks":
			want = blocks
		case "PeakBytes", "PeakBound":
			want = field(s, i)
		default:
			want = field(s, i) - field(before, i)
		}
		if field(got, i) != want {
			t.Errorf("%s: %d, want %d", name, field(got, i), want)
		}
	}
}

func TestStatsString(t *testing.T) {
	var c Counter
	child := c.Child()
	c.Allocate(64<<10, 64<<10)
	child.Allocate(96<<10, 96<<10)
	child.Free(96<<10, 96<<10)
	child.FailFree()
	const want = "live 64 KiB in 1 block, peak 160 KiB (± 64 KiB); 2 allocations, 0 reallocations, 1 free, 1 failure; allocated 160 KiB, freed 96 KiB"
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
	c.Free(4096, 4096)
	data, err := json.Marshal(c.Stats())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"allocations":2,"reallocations":0,"frees":1,"failed_allocations":0,"failed_reallocations":0,"failed_frees":0,` +
		`"requested_bytes":9096,"allocated_bytes":12288,"freed_bytes":4096,"live_bytes":8192,"live_blocks":1,"live_requested_bytes":5000,"peak_bytes":12288,"peak_bound":0,` +
		`"classes":[{"size":4096,"allocated":1,"freed":1},{"size":8192,"allocated":1,"freed":0}]}`
	if string(data) != want {
		t.Errorf("JSON = %s\nwant   %s", data, want)
	}
	var back Stats
	if err := json.Unmarshal(data, &back); err != nil || back != c.Stats() {
		t.Errorf("Unmarshal = %+v, %v; want %+v", back, err, c.Stats())
	}
}

func TestClassesJSONRefuses(t *testing.T) {
	for data, want := range map[string]string{
		`[{"size":4096,"freed":1},{"size":64,"freed":1},{"size":4096,"freed":1}]`: "size 4096 stands twice",
		`[{"size":64,"freed":1},{"size":999,"freed":1}]`:                          "size 999 is not a power of two",
		`[{"freed":1}]`: "size 0 is not a power of two",
	} {
		var c Classes
		if err := json.Unmarshal([]byte(data), &c); err == nil || !strings.Contains(err.Error(), want) || c != (Classes{}) {
			t.Errorf("Unmarshal(%s): error %v, want %q and nothing changed", data, err, want)
		}
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
