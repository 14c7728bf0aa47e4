package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// readParquet returns the rows of a file as those of CSV, and what else it says.
func readParquet[T any, R row[T]](t *testing.T, file []byte) (rows [][]string, of *parquet.File) {
	t.Helper()
	of, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	in := parquet.NewGenericReader[T](of)
	defer in.Close()
	buffer := make([]T, 1000)
	for {
		n, err := in.Read(buffer)
		for i := range buffer[:n] {
			rows = append(rows, R(&buffer[i]).columns())
		}
		if err == io.EOF {
			return rows, of
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// tableColumns are those of docs/export-a-recording.md.
var tableColumns = map[string]string{
	"events": "time_ns,event,address,size,requested,alignment,proxy,child,region,stack,dropped,reallocation",
	"blocks": "acquired_ns,released_ns,state,address,size,requested,proxy,child,region,stack",
}

// TestExportParquet: a file of Parquet has the rows of CSV, with and without dropped events, and says of which process they are.
func TestExportParquet(t *testing.T) {
	lossy := filepath.Join(t.TempDir(), "lossy")
	writeLossy(t, lossy)
	storm, _ := newStorm(t, 20_000)
	r := &runner{t: t}
	for _, path := range []string{newRecording(t), storm, lossy} {
		status := map[bool]int{true: damaged}[path == lossy]
		for table, args := range map[string][]string{"events": nil, "blocks": {"-blocks"}} {
			want, err := csv.NewReader(strings.NewReader(r.run(status, slices.Concat([]string{"export", "csv"}, args, []string{path})...))).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			file := []byte(r.run(status, slices.Concat([]string{"export", "parquet"}, args, []string{path})...))
			read := readParquet[eventRow]
			if table == "blocks" {
				read = readParquet[blockRow]
			}
			got, of := read(t, file)
			if columns := strings.Join(want[0], ","); columns != tableColumns[table] {
				t.Errorf("%s has the columns %s", table, columns)
			}
			if i, same := firstDifference(got, want[1:]); !same {
				t.Fatalf("%s: %d rows, want %d; row %d is\n%q, want\n%q", table, len(got), len(want)-1, i, got[i], want[1+i])
			}
			for key, want := range map[string]string{"table": table, "version": "1", "pid": strconv.Itoa(os.Getpid())} {
				if got, _ := of.Lookup("alloctrace." + key); got != want {
					t.Errorf("%s: %s is %q, want %q", table, key, got, want)
				}
			}
			if began, _ := of.Lookup("alloctrace.began"); path != lossy && path != storm && began != "2000-01-01T00:00:00Z" {
				t.Errorf("began %q", began)
			}
		}
	}
}

func firstDifference(a, b [][]string) (int, bool) {
	for i := range min(len(a), len(b)) {
		if !slices.Equal(a[i], b[i]) {
			return i, false
		}
	}
	return 0, len(a) == len(b)
}

// duckdbVersion is that of npm's @duckdb/node-api, which has DuckDB in it.
const duckdbVersion = "1.5.6-r.1"

// duckdb returns the rows of queries.
func duckdb(t *testing.T, queries ...string) (results [][]map[string]string) {
	t.Helper()
	cache := os.Getenv("ALLOCTRACE_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(user, "alloctrace")
	}
	dir := filepath.Join(cache, "duckdb-"+duckdbVersion)
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "@duckdb", "node-api")); err != nil {
		if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "1" {
			t.Skipf("no DuckDB here: npm install --prefix %s @duckdb/node-api@%s", dir, duckdbVersion)
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "@duckdb/node-api@"+duckdbVersion)
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", install, err, out)
		}
	}
	script, err := filepath.Abs("testdata/duckdb.cjs")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", append([]string{script}, queries...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	out := outputOf(t, cmd)
	for line := range strings.Lines(string(out)) {
		var rows []map[string]any
		if err := json.Unmarshal([]byte(line), &rows); err != nil {
			t.Fatal(err)
		}
		var texts []map[string]string
		for _, row := range rows {
			text := make(map[string]string)
			for name, value := range row {
				if s, ok := value.(string); ok {
					text[name] = s
				} else {
					b, _ := json.Marshal(value)
					text[name] = string(b)
				}
			}
			texts = append(texts, text)
		}
		results = append(results, texts)
	}
	return results
}

// outputOf returns what a program writes, which must not fail.
func outputOf(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%v: %v: %s", cmd, err, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDuckDB: the sums of DuckDB over the tables are those of the model, and CSV and Parquet have the same.
func TestDuckDB(t *testing.T) {
	duckdb(t, "select 1")
	path, m := newStorm(t, stormEvents())
	r := &runner{t: t}
	dir := t.TempDir()
	file := func(name string, args ...string) string {
		name = filepath.Join(dir, name)
		r.run(whole, slices.Concat([]string{"export", "-o", name}, args, []string{path})...)
		return "'" + name + "'"
	}
	csvEvents, csvBlocks := file("e.csv", "csv"), file("b.csv", "-blocks", "csv")
	for kind, tables := range map[string][2]string{
		"csv":     {"read_csv(" + csvEvents + ", nullstr = '')", "read_csv(" + csvBlocks + ", nullstr = '')"},
		"parquet": {file("e.parquet", "parquet"), file("b.parquet", "-blocks", "parquet")},
	} {
		child := "coalesce(child, '')"
		change := "case when event in ('freeing', 'reallocating') then -size::bigint when event not in ('allocate failed', 'dropped') then size::bigint end"
		results := duckdb(t,
			"select event, count(*) n from "+tables[0]+" group by event",
			"select "+child+" child, sum(case when event in ('allocated', 'reallocated') then size end)::bigint allocated, sum("+change+")::bigint live from "+tables[0]+" group by 1",
			"select max(live) peak from (select sum("+change+") over (order by n rows unbounded preceding)::bigint live from (select *, row_number() over () n from "+tables[0]+"))",
			"select "+child+" child, count(*) n, sum(size)::bigint allocated, coalesce(sum(size) filter (state = 'live'), 0)::bigint live from "+tables[1]+" group by 1",
			"select len(string_split(stack, 'alloctrace.deep ')) - 1 depth, sum(size)::bigint live from "+tables[1]+" where state = 'live' group by 1",
			"select count(*) n from "+tables[0]+" a join "+tables[0]+" b using (reallocation) where a.event = 'reallocating' and b.event = 'reallocated' and a.child is not distinct from b.child",
			"select count(*) n from "+tables[1]+" where released_ns < acquired_ns or requested is null or address is null",
		)
		events := make(map[string]int64)
		for _, row := range results[0] {
			events[row["event"]] = parse(t, row["n"])
		}
		if !maps.Equal(events, m.events) {
			t.Errorf("%s: events %v, want %v", kind, events, m.events)
		}
		if got := parse(t, results[2][0]["peak"]); got != m.peak {
			t.Errorf("%s: peak %d, want %d", kind, got, m.peak)
		}
		if got := parse(t, results[5][0]["n"]); got != m.events["reallocated"] {
			t.Errorf("%s: %d reallocations have both events, want %d", kind, got, m.events["reallocated"])
		}
		blocks := int64(0)
		for i, rows := range [][]map[string]string{results[1], results[3]} {
			if len(rows) != 3 {
				t.Errorf("%s: %v", kind, rows)
			}
			for _, row := range rows {
				if allocated, live := parse(t, row["allocated"]), parse(t, row["live"]); allocated != m.allocated[row["child"]] || live != m.live[row["child"]] {
					t.Errorf("%s: table %d: %v, want %d and %d", kind, i, row, m.allocated[row["child"]], m.live[row["child"]])
				}
				if i == 1 {
					blocks += parse(t, row["n"])
				}
			}
		}
		if blocks != m.blocks || results[6][0]["n"] != "0" {
			t.Errorf("%s: %d blocks, want %d; wrong ones: %v", kind, blocks, m.blocks, results[6])
		}
		byDepth := make(map[int]int64)
		for _, row := range results[4] {
			byDepth[int(parse(t, row["depth"]))] = parse(t, row["live"])
		}
		maps.DeleteFunc(m.held, func(_ int, n int64) bool { return n == 0 })
		if !maps.Equal(byDepth, m.held) {
			t.Errorf("%s: live by depth %v, want %v", kind, byDepth, m.held)
		}
	}
}

// TestDuckDBDocs: the queries of docs/export-a-recording.md are answered.
func TestDuckDBDocs(t *testing.T) {
	duckdb(t, "select 1")
	page, err := os.ReadFile("../../../docs/export-a-recording.md")
	if err != nil {
		t.Fatal(err)
	}
	path, m := newStorm(t, 5000)
	r := &runner{t: t}
	text := string(page)
	for _, table := range []string{"events", "blocks"} {
		file := filepath.Join(t.TempDir(), table+".parquet")
		r.run(whole, slices.Concat([]string{"export", "parquet", "-o", file}, map[string][]string{"blocks": {"-blocks"}}[table], []string{path})...)
		text = strings.ReplaceAll(text, "'"+table+".parquet'", "'"+file+"'")
	}
	var queries []string
	for _, block := range strings.Split(text, "```sql\n")[1:] {
		if block, _, _ = strings.Cut(block, "```"); strings.Contains(block, ".parquet") {
			queries = append(queries, strings.Split(strings.TrimSpace(block), ";\n")...)
		}
	}
	if len(queries) < 5 {
		t.Fatalf("there are %d queries", len(queries))
	}
	var live, reallocated bool
	for i, rows := range duckdb(t, queries...) {
		if len(rows) == 0 {
			if !strings.Contains(queries[i], "released_ns - acquired_ns") { // on a slow machine no block may live for so short a time
				t.Errorf("%s has no rows", queries[i])
			}
			continue
		}
		last := rows[len(rows)-1]
		if n, ok := last["live"]; ok {
			live = true
			if parse(t, n) != total(m.live) {
				t.Errorf("in the end %s is live, want %d", n, total(m.live))
			}
		}
		if _, ok := last["requested"]; ok {
			reallocated = true
			if int64(len(rows)) != m.events["reallocated"] {
				t.Errorf("%d reallocations, want %d", len(rows), m.events["reallocated"])
			}
		}
	}
	if !live || !reallocated {
		t.Errorf("live: %t, reallocated: %t, of %q", live, reallocated, queries)
	}
}

func parse(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
