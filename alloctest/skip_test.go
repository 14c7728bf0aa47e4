package alloctest

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/adapter.v2"
)

const adapterPackages = "github.com/alloctrace/alloctrace/internal/adapter.v2/..."

// load stands for a program whose memory an adapter allocates.
//
//go:noinline
func load(p blockalloc.Allocator) blockalloc.Block { return adapter.New(p, 128) }

// TestSkip: a leak through an adapter is reported by who called that.
func TestSkip(t *testing.T) {
	setDebug(t, "")
	set(t, skipFlag, "")
	const live = `^alloctest: Proxy has leaked 128 B in 1 block\n128 B in 1 block is live:\n  128 B in 1 block of 128 B: `
	const whole = live + `inner.Allocate \(inner.go:\d+\), adapter%\S+ \(adapter.go:\d+\), adapter%2ev2.call \(adapter.go:\d+\), adapter%2ev2.\(\*builder\[...\]\).block \(adapter.go:\d+\) and 4 more calls; \S+ old\n$`
	const skipped = live + `alloctest.load \(skip_test.go:\d+\), alloctest.TestSkip \(skip_test.go:\d+\); \S+ old\n$`
	for name, c := range map[string]struct {
		flag string
		opts []Option
		want string
	}{
		"without": {"", nil, whole},
		"other":   {"", []Option{WithSkip("github.com/apache/arrow-go/...")}, whole},
		"option":  {"", []Option{WithSkip("example.com/a", adapterPackages)}, skipped},
		"options": {"", []Option{WithSkip(adapterPackages), WithSkip("example.com/a")}, skipped},
		"flag":    {"example.com/a," + adapterPackages, []Option{WithSkip("example.com/b")}, skipped},
	} {
		*skipFlag = c.flag
		var r recorder
		load(New(&r, c.opts...))
		r.end()
		if len(r.errors) != 1 || !regexp.MustCompile(c.want).MatchString(r.errors[0]) {
			t.Errorf("%s: %q\nwant %s", name, r.errors, c.want)
		}
	}
}

// TestSkipOfMisuse: so are the stacks of what a debug.Allocator finds.
func TestSkipOfMisuse(t *testing.T) {
	setDebug(t, "")
	set(t, skipFlag, "")
	const want = `alloctest: debug: Free(block ADDR of 128 B aligned to 8): block already freed: free a block once
	allocated by
		skip_test.go:LINE alloctest.load
		skip_test.go:LINE alloctest.TestSkipOfMisuse
	freed first by
		skip_test.go:LINE alloctest.TestSkipOfMisuse
	freed again by
		skip_test.go:LINE alloctest.TestSkipOfMisuse`
	for name, opts := range map[string][]Option{
		"option":  {WithSkip(adapterPackages)},
		"debug's": {WithDebug(debug.Options{Skip: []string{adapterPackages}})},
		"both":    {WithDebug(debug.Options{Skip: []string{"example.com/a"}}), WithSkip(adapterPackages)},
	} {
		var r recorder
		mem := New(&r, opts...)
		b := load(mem)
		if err := adapter.Free(mem, b); err != nil {
			t.Fatal(err)
		}
		if err := adapter.Free(mem, b); err == nil {
			t.Errorf("%s: a second free is no error", name)
		}
		r.end()
		if got := strings.TrimSpace(stable(r.texts())); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// TestSkipOfScenarios: the flag is for checks that have no options, too.
func TestSkipOfScenarios(t *testing.T) {
	set(t, skipFlag, adapterPackages)
	var r recorder
	CheckInitialized(&r, func(mem *alloctrace.Proxy) byte {
		b := load(mem)
		defer func() { _ = mem.Free(b) }()
		return b.Bytes()[7]
	})
	if text := stable(r.texts()); !strings.Contains(text, "allocation 1 of 1, of 128 B aligned to 8, by\n\tskip_test.go:LINE alloctest.load\n\tskip_test.go:LINE alloctest.TestSkipOfScenarios.func") {
		t.Errorf("CheckInitialized: %s", text)
	}
	failing := tb{TB: t}
	CheckAllFailures(&failing, func(mem *alloctrace.Proxy) (err error) {
		defer func() {
			if failed, ok := recover().(error); ok { // of the adapter
				err = failed
			}
		}()
		first := load(mem)
		second, err := mem.Allocate(blockalloc.BlockLayout(64))
		if err != nil {
			return err // and the first one leaks
		}
		return errors.Join(mem.Free(first), mem.Free(second))
	})
	if text := stable(strings.Join(failing.errors, "\n")); !strings.Contains(text, "  128 B in 1 block of 128 B: alloctest.load (skip_test.go:LINE), alloctest.TestSkipOfScenarios.func") {
		t.Errorf("CheckAllFailures: %s", text)
	}
}

// ending is a testing.TB that tells a recorder why it ends.
type ending struct {
	*recorder
	testing.TB
}

func (e ending) Helper()                           {}
func (e ending) Cleanup(f func())                  { e.recorder.Cleanup(f) }
func (e ending) Errorf(format string, args ...any) { e.recorder.Errorf(format, args...) }
func (e ending) Fatalf(format string, args ...any) { e.recorder.Fatalf(format, args...) }

// TestSkipIsNoPath: who gives another thing than import paths hears what to give, and from where it is.
func TestSkipIsNoPath(t *testing.T) {
	const use = `: it is a folder: use import paths, such as "example.com/adapter", or "example.com/adapter/..." for all packages below as well`
	set(t, skipFlag, "")
	var r recorder
	ended(func() { New(&r, WithSkip("example.com/a", "./adapter")) })
	if want := `alloctest: WithSkip has "./adapter"` + use; r.fatal != want {
		t.Errorf("%q, want %q", r.fatal, want)
	}
	*skipFlag = "example.com/a,../adapter"
	scenario := func(*alloctrace.Proxy) bool { t.Error("the scenario runs"); return true }
	for name, run := range map[string]func(r *recorder){
		"CheckAllFailures": func(r *recorder) {
			CheckAllFailures(ending{r, t}, func(*alloctrace.Proxy) error { scenario(nil); return nil })
		},
		"New":              func(r *recorder) { New(r) },
		"CheckInitialized": func(r *recorder) { CheckInitialized(r, scenario) },
	} {
		var r recorder
		ended(func() { run(&r) })
		if want := `alloctest: -alloctest.skip=example.com/a,../adapter: Skip has "../adapter"` + use; r.fatal != want {
			t.Errorf("%s: %q, want %q", name, r.fatal, want)
		}
	}
}
