package alloctest

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/process"
)

// keep allocates and frees n blocks of a KiB, which are all live at once.
func keep(t *testing.T, a blockalloc.Allocator, n int) {
	t.Helper()
	var blocks []blockalloc.Block
	for range n {
		b, err := a.Allocate(blockalloc.BlockLayout(1 << 10))
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	for _, b := range blocks {
		if err := a.Free(b); err != nil {
			t.Error(err)
		}
	}
}

// TestLimit: who had more live at once than the option or the flag allows is named, and nobody else.
func TestLimit(t *testing.T) {
	for _, c := range []struct {
		flag   string
		opts   []Option
		blocks int
		limit  string // that was exceeded, "" if none was
	}{
		{"", nil, 10, ""},
		{"", []Option{WithLimit(10 << 10)}, 10, ""},
		{"", []Option{WithLimit(10<<10 - 1)}, 10, "10 KiB"},
		{"", []Option{WithLimit(0)}, 10, ""},
		{"", []Option{WithLimit(-1)}, 10, ""},
		{"9KiB", nil, 10, "9 KiB"},
		{"9KiB", []Option{WithLimit(20 << 10)}, 10, "9 KiB"},
		{"20KiB", []Option{WithLimit(5 << 10)}, 10, "5 KiB"},
		{"10240", nil, 10, ""},
		{"1MiB", nil, 10, ""},
		{"1B", []Option{WithStacks(Off)}, 1, "1 B"},
	} {
		set(t, limitFlag, c.flag)
		var r recorder
		mem := New(&r, c.opts...)
		keep(t, mem, c.blocks)
		keep(t, mem, 1)
		r.end()
		text := strings.Join(r.errors, "\n")
		if c.limit == "" {
			if text != "" {
				t.Errorf("-alloctest.limit=%s: %s", c.flag, text)
			}
			continue
		}
		want := `^alloctest: .* had \d+ KiB live at once, and its limit is ` + c.limit + `: free earlier, or raise it`
		if c.flag != "1B" {
			want += `\n10 KiB in 10 blocks were live at the peak:\n  10 KiB in 10 blocks: alloctest.keep \(limit_test.go:\d+\), .*\n`
		}
		if !regexp.MustCompile(want + `$`).MatchString(text) {
			t.Errorf("-alloctest.limit=%s: %s\nwant %s", c.flag, text, want)
		}
	}
}

// TestLimitFlag: what makes no sense says what would.
func TestLimitFlag(t *testing.T) {
	for _, value := range []string{"0", "-1", "1.5GiB", "many", "KiB", "1KB", "1KiBKiB", "9223372036854775807KiB", "1 MiB"} {
		set(t, limitFlag, value)
		var r recorder
		ended(func() { New(&r) })
		if want := "alloctest: -alloctest.limit=" + value + ": use a number above 0 of B, KiB, MiB, GiB or TiB, such as 64MiB"; r.fatal != want {
			t.Errorf("%q, want %q", r.fatal, want)
		}
	}
}

// TestAttributes: go test -v prints what a test has had live, and what it has leaked.
func TestAttributes(t *testing.T) {
	const variable = "ALLOCTEST_TEST_ATTRIBUTES"
	if os.Getenv(variable) != "" {
		keep(t, New(t), 3)
		return
	}
	if !process.CanStart(t) {
		return
	}
	out, err := process.Again(t, variable+"=1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"TestAttributes alloctest.peak_bytes 3072", "TestAttributes alloctest.leaked_bytes 0"} {
		if !strings.Contains(string(out), "=== ATTR  "+want+"\n") && !strings.Contains(string(out), "=== ATTR  "+want+"\r\n") {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// attributes has what a test is given as attributes.
type attributes struct {
	recorder
	of map[string]string
}

func (a *attributes) Attr(key, value string) { a.of[key] = value }

// TestLimitOfChildren: what children had live at the same time counts for the limit and the attribute, and not what they had one after the other.
func TestLimitOfChildren(t *testing.T) {
	for _, c := range []struct {
		atOnce bool
		peak   string
		errors int
	}{{false, "6144", 0}, {true, "12288", 1}} {
		a := attributes{of: make(map[string]string)}
		mem := New(&a, WithLimit(10<<10))
		first, second := mem.Child("first"), mem.Child("second")
		b := leak(t, first, 6<<10)
		if !c.atOnce {
			release(t, first, b)
		}
		release(t, second, leak(t, second, 6<<10))
		if c.atOnce {
			release(t, first, b)
		}
		a.end()
		if len(a.errors) != c.errors || a.of["alloctest.peak_bytes"] != c.peak {
			t.Errorf("children have 6 KiB each, at once: %t: %q, and the peak %s; want %d errors, and %s", c.atOnce, a.errors, a.of["alloctest.peak_bytes"], c.errors, c.peak)
		}
	}
}

// TestNothingSampled: where no block that leaks, or was live at the peak, was sampled, the report does not say that there were none.
func TestNothingSampled(t *testing.T) {
	for range 100 {
		var r recorder
		mem := New(&r, WithStacks(Sampled), WithLimit(10))
		b := leak(t, mem, 16)
		sampled := Profile(mem).Stats().Sampled > 0
		r.end()
		release(t, mem, b)
		if sampled {
			continue
		}
		text := strings.Join(r.errors, "\n")
		want := `^alloctest: Proxy has leaked 16 B in 1 block\n  1 block of up to 16 B\n\nalloctest: Proxy had 16 B live at once, and its limit is 10 B: free earlier, or raise it$`
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%q, want %s", text, want)
		}
		return
	}
	t.Error("100 blocks of 16 bytes were sampled")
}
