package pprof

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// requireAll has all tests run in full, and fail where they would be skipped.
var requireAll = os.Getenv("ALLOCTRACE_REQUIRE_ALL") != ""

// These are the places of the program whose profile is taken.

//go:noinline
func cachePages(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 4096) }

//go:noinline
func buildIndex(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 1<<20) }

//go:noinline
func parseRows(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 96) }

func allocate(t testing.TB, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil || b.Size() != size {
		t.Fatalf("%v, %v", b, err)
	}
	return b
}

// planted says how many blocks a place allocates, and how many of them it frees.
var planted = []struct {
	name             string
	size             int64
	allocated, freed int64
	allocate         func(testing.TB, blockalloc.Allocator) blockalloc.Block
}{
	{"cachePages", 4096, 100_000, 40_000, cachePages},
	{"buildIndex", 1 << 20, 500, 100, buildIndex},
	{"parseRows", 96, 1_000_000, 500_000, parseRows},
}

// plant runs the program, with all counts divided by what is given, and frees at the end of
// the test what it has not.
func plant(t testing.TB, a blockalloc.Allocator, by int64) {
	for _, place := range planted {
		var live []blockalloc.Block
		for i := range place.allocated / by {
			b := place.allocate(t, a)
			if i < place.freed/by {
				if err := a.Free(b); err != nil {
					t.Fatal(err)
				}
				continue
			}
			live = append(live, b)
		}
		t.Cleanup(func() {
			for _, b := range live {
				if err := a.Free(b); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// truth returns what a profile of the planted program must have of a place.
func truth(i int, by int64) [4]float64 {
	p := planted[i]
	allocated, live := float64(p.allocated/by), float64(p.allocated/by-p.freed/by)
	return [4]float64{allocated, allocated * float64(p.size), live, live * float64(p.size)}
}

// of returns the sums of a profile's samples with a function among their innermost.
func of(p *profile.Profile, function string) (sums [4]float64) {
	for _, s := range p.Sample {
		for _, l := range s.Location {
			name := l.Line[len(l.Line)-1].Function.Name
			if strings.HasSuffix(name, ".allocate") {
				continue
			}
			if strings.HasSuffix(name, "."+function) {
				for i, v := range s.Value {
					sums[i] += float64(v)
				}
			}
			break
		}
	}
	return sums
}

func get(t testing.TB, url string) []byte {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", url, response.Status, err, body)
	}
	return body
}

func parse(t testing.TB, content []byte) *profile.Profile {
	t.Helper()
	p, err := profile.Parse(bytes.NewReader(content))
	if err == nil {
		err = p.CheckValid()
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serve starts a server of p, and returns where.
func serve(t testing.TB, p *heapprofile.Profile, of ...blockalloc.Allocator) string {
	mux := http.NewServeMux()
	mux.Handle("GET /debug/pprof/offheap", Handler(p, of...))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + "/debug/pprof/offheap"
}

// newSlab returns an allocator whose blocks have the sizes that are asked for, and of
// which none may be live when the test ends.
func newSlab(t testing.TB) *blockalloc.Slab {
	pool := new(blockalloc.Pool)
	slab, err := blockalloc.NewSlab(pool, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, close := range []func() error{slab.Close, pool.Close} {
			if err := close(); err != nil {
				t.Error(err)
			}
		}
	})
	return slab
}

// TestEstimates: what each place is said to have allocated and to have in use is right to
// 5 % on average, and not above or below the truth by more than chance has it: five times
// its standard error, which is known, and rounding to whole blocks.
func TestEstimates(t *testing.T) {
	const rate = heapprofile.DefaultRate
	runs, by := 100, int64(1)
	if !requireAll {
		runs, by = 20, 10 // a fifth of the runs, of a tenth of the blocks, and of what they show
	}
	errors := make([][4][]float64, len(planted))
	slab := newSlab(t)
	for range runs {
		p := heapprofile.New(heapprofile.Options{Rate: rate})
		t.Run("", func(t *testing.T) {
			plant(t, alloctrace.Wrap(slab, alloctrace.WithHooks(p)), by)
			taken := parse(t, get(t, serve(t, p)))
			for i, place := range planted {
				want := truth(i, by)
				for j, got := range of(taken, place.name) {
					errors[i][j] = append(errors[i][j], got/want[j]-1)
				}
			}
		})
	}
	for i, place := range planted {
		for j, kind := range []string{"alloc_objects", "alloc_space", "inuse_objects", "inuse_space"} {
			var mean float64
			for _, e := range errors[i][j] {
				mean += e / float64(runs)
			}
			chosen := -math.Expm1(-float64(place.size) / rate)
			blocks := truth(i, by)[j&^1] * float64(runs)
			deviation := math.Sqrt((1 - chosen) / chosen / blocks)
			t.Logf("%-12s %-14s error %+.2f %%, standard error %.2f %%", place.name, kind, 100*mean, 100*deviation)
			if by == 1 && math.Abs(mean) > 0.05 || math.Abs(mean) > 5*deviation+0.5/truth(i, by)[j&^1] {
				t.Errorf("%s: %s is wrong by %.4f on average, and by chance by %.4f", place.name, kind, mean, deviation)
			}
		}
	}
}

// tool returns the program that go tool pprof runs. It is asked for once: the go command takes
// longer than what it runs.
var tool = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "pprof").Output()
	return strings.TrimSpace(string(out)), err
})

// goTool runs go tool pprof.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	out, stderr, err := runGoTool(t, args...)
	if err != nil {
		t.Fatalf("go tool pprof %q: %v\n%s", args, err, stderr)
	}
	return out
}

func runGoTool(t *testing.T, args ...string) (out, stderr string, err error) {
	t.Helper()
	program, err := tool()
	if err != nil {
		how := "profiles are read by go tool pprof: put the go command on PATH"
		if requireAll {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	var o, e strings.Builder
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// flat returns what -top says of a function, in the unit of the profile.
func flat(t *testing.T, top, function string) float64 {
	t.Helper()
	match := regexp.MustCompile(`(?m)^\s*([0-9.]+)B?\s.*\.` + function + `( \(inline\))?$`).FindStringSubmatch(top)
	if match == nil {
		t.Fatalf("%s is not in\n%s", function, top)
	}
	value, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestGoTool: go tool pprof names each place, by each of the four values, and takes
// labels for focus.
func TestGoTool(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 1}) // what it says is exact
	mem := alloctrace.Wrap(newSlab(t), alloctrace.WithHooks(p))
	plant(t, mem, 100)
	ctx := pprof.WithLabels(t.Context(), pprof.Labels("job", "merge"))
	held := []blockalloc.Block{cachePages(t, mem.WithContext(ctx)), cachePages(t, mem.Child("index"))}
	defer func() {
		for _, b := range held {
			if err := mem.Free(b); err != nil {
				t.Error(err)
			}
		}
	}()
	url := serve(t, p)
	for i, kind := range []string{"alloc_objects", "alloc_space", "inuse_objects", "inuse_space"} {
		top := goTool(t, "-top", "-unit=B", "-nodefraction=0", "-sample_index="+kind, "-hide=\\.allocate$", url)
		for j, place := range planted {
			want := truth(j, 100)[i]
			if place.name == "cachePages" {
				want += []float64{2, 8192, 2, 8192}[i]
			}
			if got := flat(t, top, place.name); math.Abs(got-want) > want/1000 {
				t.Errorf("%s of %s is %v, want %v", kind, place.name, got, want)
			}
		}
	}
	for _, focus := range []string{"job=merge", "allocator=index"} {
		if got := flat(t, goTool(t, "-top", "-unit=B", "-tagfocus="+focus, "-hide=\\.allocate$", url), "cachePages"); got != 4096 {
			t.Errorf("with -tagfocus=%s: %v, want 4096", focus, got)
		}
	}
	if top := goTool(t, "-top", "-unit=B", "-hide=\\.allocate$", url); !strings.Contains(top, "Type: inuse_space\n") {
		t.Errorf("unless told otherwise it shows\n%s", top)
	}
	// The text is what go tool pprof calls a legacy profile, without symbols, and with
	// numbers that are not to be scaled.
	var inUse, want float64
	for _, s := range parse(t, get(t, url+"?debug=1")).Sample {
		inUse += float64(s.Value[3])
	}
	if want = float64(mem.Stats().LiveBytes); inUse != want {
		t.Errorf("by the text %v bytes are in use, want %v", inUse, want)
	}
}

// TestCombined: Go's own heap and what is outside are in one profile, each with a label.
func TestCombined(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
	b := buildIndex(t, mem)
	url := serve(t, p)
	combined := parse(t, get(t, url+"?combined=1"))
	var on, off bool
	for _, s := range combined.Sample {
		on = on || s.HasLabel("memory", "heap")
		off = off || s.HasLabel("memory", "offheap")
	}
	if got := of(combined, "buildIndex"); !on || !off || got[3] < 1<<20 {
		t.Errorf("Go's heap is there: %t, what is outside: %t, of which %v", on, off, got)
	}
	heap := t.TempDir() + "/heap.pb.gz"
	var content bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&content, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(heap, content.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if top := goTool(t, "-top", "-unit=B", "-nodecount=1000", "-nodefraction=0", "-hide=\\.allocate$", heap, url); flat(t, top, "buildIndex") < 1<<20 {
		t.Errorf("merged with Go's heap profile by go tool pprof:\n%s", top)
	}
	if err := mem.Free(b); err != nil {
		t.Error(err)
	}
}

// TestDifference: with seconds there is what was allocated in that time, and what was freed
// is negative.
func TestDifference(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
	before := buildIndex(t, mem)
	h := handler{profile: p}
	request := httptest.NewRequest("GET", "/?seconds=0.05", nil)
	var held blockalloc.Block
	taken := make(chan *profile.Profile)
	go func() {
		taken <- parse(t, body(t, h, request))
	}()
	// It may look at the profile before or after this: whichever, what is in use is the sum.
	held = cachePages(t, mem)
	if err := mem.Free(before); err != nil {
		t.Error(err)
	}
	first := <-taken
	for _, v := range of(first, "parseRows") {
		if v != 0 {
			t.Errorf("of a place that allocates nothing: %v", v)
		}
	}
	second := parse(t, body(t, h, httptest.NewRequest("GET", "/?seconds=0.01", nil)))
	if got := of(second, "cachePages"); got != [4]float64{} || second.DurationNanos < 10e6 {
		t.Errorf("when nothing happens: %v in %d ns", got, second.DurationNanos)
	}
	if err := mem.Free(held); err != nil {
		t.Error(err)
	}
}

func body(t *testing.T, h http.Handler, r *http.Request) []byte {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("%s: %d: %s", r.URL, w.Code, w.Body)
	}
	return w.Body.Bytes()
}

// brokenWriter fails every write.
// TestText is whole but for addresses and lines.
func TestText(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
	b := cachePages(t, mem.WithContext(pprof.WithLabels(t.Context(), pprof.Labels("job", "merge"))))
	text := string(body(t, Handler(p), httptest.NewRequest("GET", "/?debug=1", nil)))
	text = regexp.MustCompile(`0x[0-9a-f]+`).ReplaceAllString(text, "ADDR")
	text = regexp.MustCompile(`\S*/pprof_test.go:\d+`).ReplaceAllString(text, "pprof_test.go:LINE")
	text = regexp.MustCompile(`( ADDR)+\n`).ReplaceAllString(text, " ADDRS\n")
	want := `heap profile: 1: 4096 [1: 4096] @ heapprofile
1: 4096 [1: 4096] @ ADDRS
#	job=merge
`
	for _, function := range []string{"allocate", "cachePages", "TestText"} {
		want += fmt.Sprintf("#\tADDR\tgithub.com/alloctrace/alloctrace/exporters/pprof.%s\tpprof_test.go:LINE\n", function)
	}
	want += `
# rate = 1
# sampled = 1, of which live = 1, not remembered = 0
# sites = 1, stacks = 1
`
	if squeeze := regexp.MustCompile(`\t+`); squeeze.ReplaceAllString(text, "\t") != want {
		t.Errorf("the text is\n%s\nwant\n%s", text, want)
	}
	if err := mem.Free(b); err != nil {
		t.Error(err)
	}
}

// BenchmarkWrite measures a profile of three places with some thousand samples.
func BenchmarkWrite(b *testing.B) {
	p := heapprofile.New(heapprofile.Options{})
	plant(b, alloctrace.Wrap(newSlab(b), alloctrace.WithHooks(p)), 10)
	b.ReportAllocs()
	for b.Loop() {
		if err := Write(io.Discard, p); err != nil {
			b.Fatal(err)
		}
	}
}

// loadCache is inlined where it is called.
func loadCache(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return cachePages(t, a) }

// TestInlined: functions that were inlined are in the profile, at the address of the one
// they were inlined into.
func TestInlined(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
	b := loadCache(t, mem)
	var content bytes.Buffer
	if err := Write(&content, p); err != nil {
		t.Fatal(err)
	}
	var calls []string
	for _, l := range parse(t, content.Bytes()).Sample[0].Location {
		var names []string
		for _, line := range l.Line {
			names = append(names, line.Function.Name[strings.LastIndexByte(line.Function.Name, '.')+1:])
		}
		calls = append(calls, strings.Join(names, " in "))
	}
	want := "allocate, cachePages, loadCache in TestInlined"
	if got := strings.Join(calls, ", "); got != want && got != strings.ReplaceAll(want, " in ", ", ") { // without optimization
		t.Errorf("the calls are %s, want %s", got, want)
	}
	if err := mem.Free(b); err != nil {
		t.Error(err)
	}
}
