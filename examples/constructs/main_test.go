package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/internal/measure"
)

// The program runs itself to measure a row: here it is the test binary.
func TestMain(m *testing.M) {
	if os.Getenv(rowVariable) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A want is what must be true of a row. Other figures are Go's own, and have bounds.
type want struct {
	firstIsZero, eachIsZero bool
	pools                   bool // in a sync.Pool, of which the race detector drops items by chance
}

var wants = map[string]want{
	"nothing":                 {firstIsZero: true, eachIsZero: true},
	"new([64]byte)":           {},
	"fmt.Println":             {pools: true},
	"fmt.Fprintln(os.Stderr)": {pools: true},
	"os.Stderr.Write":         {eachIsZero: true, firstIsZero: runtime.GOOS != "windows"}, // where package os pools what it gives the system
	"println":                 {firstIsZero: true, eachIsZero: true},
	"log.Println":             {pools: true},
	"slog, text":              {pools: true},
	"slog, JSON":              {pools: true},
	"zerolog":                 {eachIsZero: true, pools: true},

	"Proxy, no hook":                  {firstIsZero: true, eachIsZero: true},
	"Proxy, a hook that does nothing": {firstIsZero: true, eachIsZero: true},
	"Proxy, hooks.Writer":             {eachIsZero: true, pools: true},
	"Proxy, ring":                     {eachIsZero: true},
	"Proxy, zlog":                     {eachIsZero: true, pools: true},
	"Proxy, sloghook, text":           {eachIsZero: true, pools: true},
	"Proxy, sloghook, JSON":           {eachIsZero: true, pools: true},

	"System":         {eachIsZero: true},
	"Pool":           {eachIsZero: true},
	"Slab of a Pool": {eachIsZero: true},
}

// TestTable runs the program: what allocates nothing does so to the byte, at the first call or after the first thousand.
func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := table(&out); err != nil {
		t.Fatal(err)
	}
	rows := parse(t, out.String())
	if len(rows) != len(wants)+1 {
		t.Errorf("%d rows, want %d:\n%s", len(rows), len(wants)+1, out.Bytes())
	}
	for _, r := range rows {
		if r.name == beforeMainRow {
			// It is 60 KB; under the race detector, and where tests are linked in, half as much again.
			if c := r.First; c.Bytes < 10e3 || c.Bytes > 400e3 || c.Objects < 20 || c.Objects > 2000 {
				t.Errorf("before main %v", c)
			}
			continue
		}
		w, ok := wants[r.name]
		if !ok {
			t.Errorf("row %q is in no test", r.name)
		}
		if w.pools && measure.Race {
			continue
		}
		zero := cost{}
		if w.firstIsZero && r.First != zero {
			t.Errorf("%s: the first call allocates %v, want 0", r.name, r.First)
		}
		if w.eachIsZero != (r.Each == zero) {
			t.Errorf("%s: each call after the first %d allocates %v; nothing is %t", r.name, warm, r.Each, w.eachIsZero)
		}
		// A number becomes an interface value for fmt, log and slog: one object of a word.
		if !w.eachIsZero && (r.Each.Objects != 1 || r.Each.Bytes < 4 || r.Each.Bytes > 64) {
			t.Errorf("%s: each call allocates %v, want one object of up to 64 bytes", r.name, r.Each)
		}
		// A Proxy that is busy makes its counts, and a Pool or Slab its tables: once, and not of megabytes. Under the race detector
		// the memory itself is on the Go heap.
		if w.eachIsZero && (r.First.Bytes > 1<<20 && !measure.Race || r.Next.Bytes > 64<<10 || r.Next.Objects > 64) {
			t.Errorf("%s: %v at the first call and %v at the next", r.name, r.First, r.Next)
		}
		if exact := (result{cost{64, 1}, cost{64 * (warm - 1), warm - 1}, cost{64, 1}}); r.name == "new([64]byte)" && r.result != exact {
			t.Errorf("%s is measured as %v, want %v", r.name, r.result, exact)
		}
	}
}

// TestReadme: README.md has the table that the program prints, with its zeros where it has them. Other figures depend on the
// machine and on Go's release.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(strings.ReplaceAll(string(text), "\r\n", "\n"), "```text\n")
	shown, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatalf("README.md has no table:\n%s", text)
	}
	rows := parse(t, shown)
	names := []string{beforeMainRow}
	for _, c := range constructs() {
		names = append(names, c.name)
	}
	if len(rows) != len(names) {
		t.Fatalf("README.md has %d rows, the program %d", len(rows), len(names))
	}
	for i, r := range rows {
		if r.name != names[i] {
			t.Errorf("row %d of README.md is %q, the program's is %q", i, r.name, names[i])
		}
		if w := wants[names[i]]; w.firstIsZero && r.First != (cost{}) || w.eachIsZero != (r.Each == cost{}) && i > 0 {
			t.Errorf("README.md has %+v for %s, want %+v", r.result, r.name, w)
		}
	}
}

// A row is a line of the table.
type row struct {
	name string
	result
}

// parse reads a table, whose lines after the first two have a name and 2 or 6 figures.
func parse(t *testing.T, text string) (rows []row) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if i < 2 {
			continue
		}
		if len(line) < nameWidth {
			t.Fatalf("%q is no row", line)
		}
		r := row{name: strings.TrimRight(line[:nameWidth], " ")}
		figures := []*float64{&r.First.Bytes, &r.First.Objects, &r.Next.Bytes, &r.Next.Objects, &r.Each.Bytes, &r.Each.Objects}
		fields := strings.Fields(line[nameWidth:])
		if n := len(fields); n != 6 && (n != 2 || r.name != beforeMainRow) {
			t.Fatalf("%d figures in %q", n, line)
		}
		for j, field := range fields {
			f, err := strconv.ParseFloat(field, 64)
			if err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			*figures[j] = f
		}
		rows = append(rows, r)
	}
	return rows
}

// TestUnknownRow: a process that is asked for a row that there is not says so, and so does the one that asked.
func TestUnknownRow(t *testing.T) {
	_, err := measured("fmt.Prinln")
	if exit := new(exec.ExitError); !errors.As(err, &exit) || strings.Count(err.Error(), `constructs: there is no row "fmt.Prinln"`) != 1 {
		t.Errorf("%v", err)
	}
}
