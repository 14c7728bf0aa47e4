package blackbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
	"github.com/alloctrace/alloctrace/internal/stored"
)

// sample returns a file with something of everything, and its layout.
func sample(t testing.TB) ([]byte, layout) {
	t.Helper()
	profile := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true})
	b := onHeap(t, Options{Size: minSize, Profile: profile, Period: time.Hour})
	shardtest.Stay(t) // all events are of one shard
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithHooks(profile, b))
	b.Watch(mem)
	for _, child := range []string{"cache", "index"} {
		if _, err := mem.Child(child).Allocate(blockalloc.BlockLayout(4096)); err != nil {
			t.Fatal(err)
		}
		_, _ = mem.Child(child).Allocate(blockalloc.BlockLayout(2 << 20))
	}
	for n := range 3 * int(b.shared.events) {
		e, err := numbered(0, n)
		b.Observe(t.Context(), e, err)
	}
	b.Flush()
	return slices.Clone(b.shared.mem), b.shared.layout
}

// TestDamage: what is damaged is said, and the rest is read.
func TestDamage(t *testing.T) {
	whole, l := sample(t)
	good, err := parse(whole, whole)
	if err != nil || len(good.Damage) != 0 || len(good.Live.Sites) == 0 || len(good.Events) == 0 {
		t.Fatalf("%v; %+v", err, good)
	}
	first := l.eventsAt // of the first shard that has events
	for bytes.Equal(whole[first:][:recordSize], make([]byte, recordSize)) {
		first += uint64(l.events) * recordSize
	}
	record8 := func(b []byte) *words { return (*words)(unsafe.Pointer(&b[first+8*recordSize])) }
	newest := l.tablesAt // of two tables, of generations 1 and 2
	for name, c := range map[string]struct {
		damage func(b []byte) []byte
		want   string                 // what Damage has
		keeps  func(c *Contents) bool // what is read still
	}{
		"header": {
			func(b []byte) []byte { b[24]++; return b }, "the checksum of the header is wrong",
			func(c *Contents) bool { return len(c.Events) == len(good.Events) && len(c.Live.Sites) > 0 },
		},
		"newest table": {
			func(b []byte) []byte { b[newest+100]++; return b }, "table 0 has a checksum that is wrong",
			func(c *Contents) bool {
				return len(c.Events) == len(good.Events) && c.Build.Go != "" && len(c.Live.Sites) == 0
			},
		},
		"both tables": {
			func(b []byte) []byte { b[newest+100]++; b[newest+l.tableLen+100]++; return b }, "no table is whole",
			func(c *Contents) bool { return len(c.Events) == len(good.Events) && c.Build.Go == "" },
		},
		"record": {
			func(b []byte) []byte { record8(b)[3] ^= 1; return b }, "place 8 of processor ",
			func(c *Contents) bool { return len(c.Events) == len(good.Events)-1 },
		},
		"round of a record": {
			func(b []byte) []byte { record8(b)[3] ^= 0x40 << 16; return b }, "has record ",
			func(c *Contents) bool { return len(c.Events) == len(good.Events)-1 },
		},
		"kind": {
			func(b []byte) []byte { w := record8(b); w[1] = w[1]&^(1<<stored.KindBits-1) | 12; return b }, "is of kind ",
			func(c *Contents) bool { return len(c.Events) == len(good.Events)-1 },
		},
		"names": {
			func(b []byte) []byte { b[l.namesAt+2] = 0xff; return b }, "the names of children have ",
			func(c *Contents) bool { return len(c.Events) == len(good.Events) },
		},
		"overflows": {
			func(b []byte) []byte { b[l.overflowsAt+overflowSize+11] = 0xff; return b }, "overflow 1 has texts of ",
			func(c *Contents) bool { return len(c.Events) == len(good.Events) },
		},
		"cut in events": {
			func(b []byte) []byte { return b[:first+100*recordSize] }, "of its ",
			func(c *Contents) bool { return len(c.Events) > 50 && len(c.Live.Sites) > 0 },
		},
		"cut in tables": {
			func(b []byte) []byte { return b[:newest+40] }, "no table is whole",
			func(c *Contents) bool { return c.PID == good.PID },
		},
		"header alone": {
			func(b []byte) []byte { return b[:headerSize] }, "the names of children are missing",
			func(c *Contents) bool { return c.PID == good.PID && c.Created.Equal(good.Created) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.damage(slices.Clone(whole))
			got, err := parse(b, b)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(got.Damage, "\n"), c.want) || !c.keeps(got) {
				t.Errorf("the damage is %q, want %q; %d events, %d of the good one, %d sites", got.Damage, c.want, len(got.Events), len(good.Events), len(got.Live.Sites))
			}
		})
	}
}

// TestOpenRefuses: what is no black box is an error that says why.
func TestOpenRefuses(t *testing.T) {
	whole, _ := sample(t)
	path := filepath.Join(t.TempDir(), "file")
	if _, err := Open(path); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "blackbox: Open(") {
		t.Errorf("a file that is not there: %v", err)
	}
	for want, b := range map[string][]byte{
		"it has 0 bytes":            nil,
		"it has 8 bytes":            whole[:8],
		`it begins with "somethin"`: bytes.Repeat([]byte("something"), 100),
		"its format is version 2":   append([]byte("allocbox\x02"), whole[9:]...),
		"its header is damaged":     append(slices.Clone(whole[:44]), make([]byte, 500)...),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := Open(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v; want an error with %q", c, err, want)
		}
	}
}

// TestJSON: contents go into JSON, with the names of events.
func TestJSON(t *testing.T) {
	whole, _ := sample(t)
	c, err := parse(whole, whole)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"event":"allocated"`, `"event":"free failed"`, `"function":"`, `"key":"allocator"`, `"live_bytes":`} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("there is no %s", want)
		}
	}
}

// TestWrittenMeanwhile: what is not the same in both readings was being written, and is neither read nor damage.
func TestWrittenMeanwhile(t *testing.T) {
	first, l := sample(t)
	second := slices.Clone(first)
	good, err := parse(first, first)
	if err != nil {
		t.Fatal(err)
	}
	at := l.eventsAt
	for bytes.Equal(first[at:][:recordSize], make([]byte, recordSize)) {
		at += uint64(l.events) * recordSize
	}
	copy(second[at+50*recordSize:], second[at+51*recordSize:][:16]) // half of a record
	clear(second[l.tablesAt:][:8])                                  // a table
	copy(second[l.tablesAt+50:], "something else")
	c, err := parse(first, second)
	if err != nil || len(c.Damage) != 0 || len(c.Events) != len(good.Events)-1 || len(c.Live.Sites) == 0 {
		t.Errorf("%v; damage %q, %d events of %d, %d sites", err, c.Damage, len(c.Events), len(good.Events), len(c.Live.Sites))
	}
}

// FuzzOpen: whatever a file has, nothing panics, and the events are as many as it has room for.
func FuzzOpen(f *testing.F) {
	whole, l := sample(f)
	f.Add(uint32(l.size), uint32(0), []byte(nil))
	f.Add(uint32(l.eventsAt+100), uint32(40), []byte{2, 0, 0, 0, 2})
	f.Add(uint32(l.size), uint32(l.tablesAt), bytes.Repeat([]byte{0xff}, 40))
	f.Add(uint32(l.size), uint32(l.tablesAt+tableHeader), []byte(`{"site":{"stack":[-1]}}`))
	f.Add(uint32(l.size), uint32(l.namesAt), bytes.Repeat([]byte{7}, 20))
	f.Add(uint32(l.size), uint32(l.overflowsAt), bytes.Repeat([]byte{255}, 20))
	f.Fuzz(func(t *testing.T, size, at uint32, change []byte) {
		b := slices.Clone(whole[:min(size, uint32(len(whole)))])
		copy(b[min(at, uint32(len(b))):], change)
		if len(b) >= headerCRC+4 && at < headerCRC { // a header that is otherwise whole
			order.PutUint32(b[headerCRC:], headerSum(b))
		}
		for i := range uint64(2) { // and tables that are
			if t := part(b, l.tablesAt+i*l.tableLen, l.tableLen); uint64(len(t)) == l.tableLen {
				n := min(uint64(order.Uint32(t[16:])), l.tableLen-tableHeader)
				order.PutUint32(t[20:], tableSum(order.Uint64(t), t[8:20], t[tableHeader:][:n]))
			}
		}
		c, err := parse(b, b)
		if err == nil && len(c.Events) > len(b)/recordSize {
			t.Errorf("%d events in %d bytes", len(c.Events), len(b))
		}
		if err == nil {
			if _, err := json.Marshal(c); err != nil {
				t.Error(err)
			}
		}
	})
}

// FuzzTable: whatever a table says, nothing panics.
func FuzzTable(f *testing.F) {
	f.Add([]byte(`{"build":{}}` + "\n" + `{"frame":{"function":"f"}}` + "\n" + `{"live":{}}` + "\n" + `{"site":{"stack":[0,1,-1]}}`))
	f.Add([]byte(`{"site":{}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		r := reader{contents: new(Contents)}
		r.readTable(content)
		if _, err := json.Marshal(r.contents); err != nil {
			t.Error(err)
		}
	})
}
