package expvars_test

import (
	"encoding/json"
	"expvar"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/expvars"
)

// name returns one that no other test, nor another run of it, has published.
func name(t *testing.T) string { return fmt.Sprint(t.Name(), runs.Add(1)) }

var runs atomic.Int64

// get decodes /debug/vars.
func get(t *testing.T) map[string]json.RawMessage {
	t.Helper()
	server := httptest.NewServer(http.DefaultServeMux) // where package expvar puts its handler
	defer server.Close()
	resp, err := http.Get(server.URL + "/debug/vars")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var vars map[string]json.RawMessage
	if err := json.NewDecoder(resp.Body).Decode(&vars); err != nil {
		t.Fatal(err)
	}
	return vars
}

func TestPublish(t *testing.T) {
	a, b := name(t), name(t)
	mem := alloctest.New(t, alloctest.WithAllocator(new(blockalloc.Heap)), alloctest.WithProxy(alloctrace.WithName("db")))
	other := alloctest.New(t)
	if err := expvars.Publish(mem, a); err != nil {
		t.Fatal(err)
	}
	if err := expvars.Publish(other, b); err != nil {
		t.Fatal(err)
	}
	want := counter.Stats{
		Allocations: 3, Reallocations: 1, Frees: 1, FailedAllocations: 1,
		RequestedBytes: 4096 + 100 + 1 + 5000, AllocatedBytes: 4096 + 100 + 1 + 5000, FreedBytes: 4096 + 100,
		LiveBytes: 5001, LiveBlocks: 2, LiveRequestedBytes: 5001, PeakBytes: 5101,
	}
	want.Classes[0] = counter.Class{Allocated: 1}
	want.Classes[7] = counter.Class{Allocated: 1, Freed: 1}
	want.Classes[12] = counter.Class{Allocated: 1, Freed: 1}
	want.Classes[13] = counter.Class{Allocated: 1}

	var blocks []blockalloc.Block
	for _, size := range []uintptr{4096, 100, 1} {
		block, err := mem.Allocate(blockalloc.Layout{Size: size, Align: 1})
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, block)
	}
	grown, err := mem.Reallocate(blocks[0], 5000)
	if err != nil {
		t.Fatal(err)
	}
	if err := mem.Free(blocks[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Allocate(blockalloc.Layout{Size: 1, Align: 3}); err == nil {
		t.Fatal("an alignment of 3 was granted")
	}

	vars := get(t)
	for name, want := range map[string]counter.Stats{a: want, b: {}} {
		var got counter.Stats
		if err := json.Unmarshal(vars[name], &got); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %+v", name, vars[name], err, want)
		}
	}
	const wantText = `{"allocations":3,"reallocations":1,"frees":1,"failed_allocations":1,"failed_reallocations":0,"failed_frees":0,` +
		`"requested_bytes":9197,"allocated_bytes":9197,"freed_bytes":4196,"live_bytes":5001,"live_blocks":2,"live_requested_bytes":5001,"peak_bytes":5101,"peak_bound":0,` +
		`"classes":[{"size":1,"allocated":1,"freed":0},{"size":128,"allocated":1,"freed":1},{"size":4096,"allocated":1,"freed":1},{"size":8192,"allocated":1,"freed":0}]}`
	if got := expvars.Func(mem).String(); got != wantText || got != string(vars[a]) {
		t.Errorf("Func is %s\nwant    %s\nand what was published is %s", got, wantText, vars[a])
	}

	// What is published is not the snapshot of then.
	for _, block := range []blockalloc.Block{blocks[2], grown} {
		if err := mem.Free(block); err != nil {
			t.Fatal(err)
		}
	}
	var got counter.Stats
	if err := json.Unmarshal(get(t)[a], &got); err != nil || got != mem.Stats() || got.LiveBytes != 0 {
		t.Errorf("after all was freed: %+v, %v", got, err)
	}
}

func TestErrors(t *testing.T) {
	taken := name(t)
	expvar.NewInt(taken).Set(7)
	for _, x := range []struct {
		name   string
		source counter.Source
		want   string
	}{
		{taken, counter.Stats{}, fmt.Sprintf("expvars: Publish: the name %q is taken: choose another", taken)},
		{"", counter.Stats{}, `expvars: Publish: the name is "": pass one, which /debug/vars shows`},
	} {
		if err := expvars.Publish(x.source, x.name); err == nil || err.Error() != x.want {
			t.Errorf("Publish = %v, want %s", err, x.want)
		}
	}
	vars := get(t)
	if string(vars[taken]) != "7" {
		t.Errorf("after failures %s is %s", taken, vars[taken])
	}
	for want, call := range map[string]func(){
		"expvars: Func(nil): pass a Proxy or another counter.Source":            func() { expvars.Func(nil) },
		`expvars: Publish(nil, "free"): pass a Proxy or another counter.Source`: func() { _ = expvars.Publish(nil, "free") },
	} {
		func() {
			defer func() {
				if r := recover(); r != want {
					t.Errorf("it panics with %v, want %s", r, want)
				}
			}()
			call()
		}()
	}
}

// TestStorm has goroutines publish the same names: each goes to one of them.
func TestStorm(t *testing.T) {
	var names [20]string
	for i := range names {
		names[i] = name(t)
	}
	var published atomic.Int64
	var storm sync.WaitGroup
	for range 8 {
		storm.Go(func() {
			for _, name := range names {
				if expvars.Publish(counter.Stats{Allocations: 1}, name) == nil {
					published.Add(1)
				}
			}
		})
	}
	storm.Wait()
	if n := published.Load(); n != int64(len(names)) {
		t.Errorf("%d calls of Publish succeeded for %d names", n, len(names))
	}
}
