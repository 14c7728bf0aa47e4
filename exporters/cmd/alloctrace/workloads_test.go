package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/cmem"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// A workload is a program that does its work, n times as much of it as is enough for a test.
type workload struct {
	name  string
	needs []string                                                // programs, each followed by the package of Debian that has it
	run   func(t testing.TB, dir, to string, n int) (said string) // what record says
}

var workloads = []workload{
	{"sqlite3", []string{"sqlite3", "sqlite3"}, func(t testing.TB, dir, to string, n int) string {
		return recordProgram(t, to, "sqlite3", filepath.Join(dir, "db"), fmt.Sprintf(`
			pragma threads = 2;
			create table words(id integer primary key, word text, rest text);
			with recursive n(i) as (select 1 union all select i+1 from n where i < %d)
				insert into words select i, hex(i*2654435761 %% 65537), printf('%%.*c', i %% 700, 'x') from n;
			create index by_word on words(word);
			select count(*), sum(length(rest)) from words group by word having count(*) > 3 order by 2 desc limit 5;
			delete from words where id %% 3 = 0;
			vacuum;
			pragma integrity_check;`, 3000*n))
	}},
	{"redis-server", []string{"redis-server", "redis-server", "redis-cli", "redis-tools", "redis-benchmark", "redis-tools"}, recordRedis},
	{"python3", []string{"python3", "python3"}, func(t testing.TB, dir, to string, n int) string {
		t.Setenv("PYTHONMALLOC", "malloc") // otherwise python's own allocator takes 512 bytes and less from larger blocks
		python := "/usr/bin/python3"
		if _, err := os.Stat(python); err != nil {
			python = "python3"
		}
		return recordProgram(t, to, python, "-c", fmt.Sprintf(`
import collections, json, re, threading
def work(seed):
    rows = [{"id": i, "name": "row %%d" %% (i * seed), "tags": list(range(i %% 7))} for i in range(%d)]
    words = collections.Counter(w for r in json.loads(json.dumps(rows)) for w in re.findall(r"\w+", r["name"]))
    text = ""
    for w, _ in words.most_common(200):
        text += w * 10
    return sorted(rows, key=lambda r: r["name"])[:10], text
threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 4)]
[t.start() for t in threads]
[t.join() for t in threads]
`, 100*n))
	}},
	{"git", []string{"git", "git"}, func(t testing.TB, dir, to string, n int) string {
		cmd := exec.Command("git", "-C", dir, "init", "-q", "--bare", "repo")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var history bytes.Buffer
		text := ""
		for i := range 40 * n {
			text += fmt.Sprintf("line %d of a file, %x\n", i, uint32(i)*2654435761)
			fmt.Fprintf(&history, "commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata 6\nchangeM 100644 inline f%d\ndata %d\n%s\n", 1e9+i, i%20, len(text), text)
		}
		cmd = exec.Command("git", "-C", filepath.Join(dir, "repo"), "fast-import", "--quiet")
		cmd.Stdin = &history
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
		return recordProgram(t, to, "git", "-C", filepath.Join(dir, "repo"), "log", "--patch", "--stat", "--find-renames", "main")
	}},
	{"Go", nil, recordGo},
}

// threads is a program whose threads reallocate blocks that others have allocated.
var threads = workload{"threads", []string{"cc", "gcc libc6-dev"}, func(t testing.TB, dir, to string, n int) string {
	program, source := filepath.Join(dir, "known"), "internal/preload/testdata/known.c"
	_, _ = os.Stat(source) // so that go test knows on what the result depends
	if out, err := exec.Command("cc", "-fno-builtin", "-pthread", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return recordProgram(t, to, "-threads", program, "threads")
}}

// recordProgram records a program by the command.
func recordProgram(t testing.TB, to string, args ...string) (said string) {
	t.Helper()
	status, said := runRecord(append([]string{"-o", to}, args...)...)
	if status != whole {
		t.Fatalf("record exits with %d: %s", status, said)
	}
	return said
}

func runRecord(args ...string) (status int, errOut string) {
	var out, said bytes.Buffer
	status = run(append([]string{recordName}, args...), &out, &said)
	return status, said.String()
}

// recordRedis records a server that has clients, and saves its data in a child process meanwhile.
func recordRedis(t testing.TB, dir, to string, n int) string {
	socket := filepath.Join(dir, "s")
	type ended struct {
		status int
		said   string
	}
	server := make(chan ended, 1)
	go func() {
		status, said := runRecord("-o", to, "redis-server", "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--logfile", filepath.Join(dir, "log"), "--io-threads", "2")
		server <- ended{status, said}
	}()
	client := func(args ...string) error {
		return exec.Command(args[0], append([]string{"-s", socket}, args[1:]...)...).Run()
	}
	for deadline := time.Now().Add(2 * time.Minute); client("redis-cli", "ping") != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("redis-server does not answer")
		}
	}
	problem := client("redis-benchmark", "-n", fmt.Sprint(300*n), "-r", fmt.Sprint(200*n), "-c", "10", "-d", "100", "-q", "-t", "set,get,lpush,lpop,sadd,hset,zadd")
	if problem == nil {
		problem = client("redis-cli", "bgsave")
	}
	if err := client("redis-cli", "shutdown", "nosave"); err != nil && problem == nil {
		problem = err
	}
	end := <-server
	if end.status != whole || problem != nil {
		t.Fatalf("%v; record exits with %d: %s", problem, end.status, end.said)
	}
	return end.said
}

// recordGo records a program of Go with this library, which indexes words.
func recordGo(t testing.TB, dir, to string, n int) string {
	rec, err := recording.Create(to, recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pool := new(blockalloc.Pool)
	slab, err := blockalloc.NewSlab(pool, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	mem := alloctrace.Wrap(slab, alloctrace.WithName("index"), alloctrace.WithHooks(rec))
	var all sync.WaitGroup
	for worker := range 3 {
		all.Go(func() {
			mem := mem.Child(fmt.Sprintf("worker %d", worker))
			defer mem.Close()
			index := typed.NewMap[uint64, uint32](mem)
			defer index.Free()
			words := typed.NewVec[uint64](mem)
			defer words.Free()
			for i := range 500 * n {
				text := typed.NewBuffer(mem)
				fmt.Fprintf(text, "document %d of worker %d: %s", i, worker, strings.Repeat("word ", i%50))
				word := uint64(i*i) % 997
				if err := errors.Join(words.Append(word), index.Set(word, uint32(i)), text.Free()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, end := range []func() error{rec.Close, slab.Close, pool.Close} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	return ""
}

// recordWorkload records a workload, unless a program that it needs is missing: then it says so.
func recordWorkload(t testing.TB, w workload, n int) (path string) {
	t.Helper()
	path, _ = recordedWorkload(t, w, n)
	return path
}

func recordedWorkload(t testing.TB, w workload, n int) (path, said string) {
	t.Helper()
	if len(w.needs) > 0 && runtime.GOOS != "linux" {
		t.Skip("programs that use C's malloc are recorded on Linux")
	}
	for i, program := range w.needs {
		if i%2 == 0 {
			needProgram(t, program, w.needs[i+1])
		}
	}
	if len(w.needs) > 0 {
		needProgram(t, "cc", "gcc libc6-dev")
	}
	dir := t.TempDir()
	path = filepath.Join(dir, w.name+".alloctrace")
	return path, w.run(t, dir, path, n)
}

func needProgram(t testing.TB, program, in string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1" {
		t.Fatalf("there is no %s: apt-get install %s", program, in)
	}
	t.Skipf("there is no %s: apt-get install %s", program, in)
}

// hasC reports whether there is C's malloc to replay on: in a build with cgo.
func hasC() bool {
	m := new(cmem.Malloc)
	b, err := m.Allocate(blockalloc.Layout{Size: 1, Align: 1})
	return err == nil && m.Free(b) == nil
}

func targets() []string {
	list := []string{"pool", "slab", "heap"}
	if hasC() {
		list = append(list, "malloc")
	}
	return list
}

// replayed replays a recording by the command.
func replayed(t testing.TB, on, path string, flags ...string) (r replay.Result) {
	t.Helper()
	var out, errOut bytes.Buffer
	if status := run(append([]string{"replay", "-json", "-on", on, path}, flags...), &out, &errOut); status != whole {
		t.Fatalf("replay on %s exits with %d: %s", on, status, &errOut)
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestWorkloads: what programs do is recorded without a gap, and all allocators do it again: the same blocks, each with its contents. An
// allocator that makes a mistake is found. In short, of two of them.
func TestWorkloads(t *testing.T) {
	all, n := append(slices.Clone(workloads), threads), 10
	if testing.Short() {
		all, n = []workload{workloads[0], threads}, 1
	}
	for _, w := range all {
		t.Run(w.name, func(t *testing.T) {
			path := recordWorkload(t, w, n)
			header, events, err := readRecording(path)
			if err != nil || len(events) < 3000*n {
				t.Fatalf("%v: %d events", err, len(events))
			}
			live := make(map[uintptr]uintptr) // sizes, by address
			var acquired, bytes, most int64
			for i, e := range events {
				switch e.Kind {
				case alloctrace.Allocated, alloctrace.Reallocated:
					if live[e.Addr] > 0 {
						t.Fatalf("event %d: %+v is at the address of a live block", i+1, e)
					}
					if e.Stack == nil || e.Addr&(e.Align-1) != 0 || e.Size < e.Requested {
						t.Fatalf("event %d: %+v", i+1, e)
					}
					live[e.Addr] = e.Size
					acquired++
					bytes += int64(e.Size)
					most = max(most, bytes)
				case alloctrace.Freeing, alloctrace.Reallocating:
					if live[e.Addr] != e.Size || e.Size == 0 {
						t.Fatalf("event %d: %+v, and the block there has %d bytes", i+1, e, live[e.Addr])
					}
					bytes -= int64(e.Size)
					delete(live, e.Addr)
				default:
					t.Fatalf("event %d: %+v", i+1, e)
				}
			}
			blocks := int64(len(live))
			if header.PageSize == 0 || len(w.needs) > 0 && filepath.Base(header.Program) == "" {
				t.Errorf("%+v", header)
			}
			replayed(t, "slab", path, "-goroutines", "3")
			for _, on := range targets() {
				r := replayed(t, on, path, "-addresses")
				if r.Failed > 0 || r.Skipped != (replay.Skipped{}) || r.Operations != r.Recorded.Operations || r.Recorded.Lost > 0 || r.Recorded.Events != int64(len(events)) ||
					r.Calls.Allocate.Count+r.Calls.Reallocate.Count != acquired || r.Left.Blocks != blocks || r.Recorded.Peak.Granted != most {
					t.Errorf("on %s: %v; recorded were %d acquisitions, at most %d B, %d blocks at the end", on, r, acquired, most, blocks)
				}
			}
			findPlanted(t, header, events)
		})
	}
}

// A careless allocator remembers the block that was freed last for the next who wants one. After a reallocation it remembers the new
// block, which is a mistake.
type careless struct {
	inner blockalloc.Allocator
	spare blockalloc.Block
}

func (c *careless) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b := c.spare
	if !b.IsZero() && l.Size <= b.Size() && l.Size > b.Size()/2 && b.Addr()&(l.Align-1) == 0 {
		c.spare = blockalloc.Block{}
		return b, nil
	}
	return c.inner.Allocate(l)
}

func (c *careless) Free(b blockalloc.Block) error {
	old := c.spare
	c.spare = b
	return c.inner.Free(old)
}

func (c *careless) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	n, err := c.inner.Reallocate(b, size)
	if err == nil && size > 64 {
		c.spare = n
	}
	return n, err
}

// findPlanted finds a mistake of an allocator by the work of a program: at the same event each time, and ten events show it.
func findPlanted(t *testing.T, header recording.Header, events []recording.Event) {
	fails := func(events []recording.Event) error {
		pool := new(blockalloc.Pool)
		slab, err := blockalloc.NewSlab(pool, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		_, err = replay.Run(t.Context(), replay.New(events), &careless{inner: slab}, replay.Options{})
		_ = slab.Close() // what is live twice is not freed well
		_ = pool.Close()
		return err
	}
	var first, again, small *replay.Failure
	if err := fails(events); !errors.As(err, &first) || first.Reason != replay.Changed && first.Reason != replay.Refused {
		t.Fatalf("the replay of %d events ends with %v", len(events), err)
	}
	if err := fails(events); !errors.As(err, &again) || again.Event.Number != first.Event.Number || again.Reason != first.Reason {
		t.Errorf("first it fails with %v, then with %v", first, again)
	}
	few, err := replay.Shrink(t.Context(), events, fails)
	if err != nil || len(few) > 10 {
		t.Fatalf("%v; %d events are left of %d", err, len(few), len(events))
	}
	path := filepath.Join(t.TempDir(), "small")
	if err := writeFile(path, nil, func(to io.Writer) error { return writeRecording(to, header, few) }); err != nil {
		t.Fatal(err)
	}
	_, few, err = readRecording(path)
	if err != nil || !errors.As(fails(few), &small) || small.Reason != first.Reason || small.Event.Stack == nil && small.Acquired.Stack == nil {
		t.Errorf("%v; the small recording fails with %v, all with %v", err, small, first)
	}
	t.Logf("%d of %d events are left: %v", len(few), len(events), small)
}

// TestRecord: the command exits as the program does, and says what it has recorded.
func TestRecord(t *testing.T) {
	needProgram(t, "cc", "gcc libc6-dev")
	if runtime.GOOS != "linux" {
		t.Skip("programs that use C's malloc are recorded on Linux")
	}
	dir := filepath.Join(t.TempDir(), "c d") // spaces separate libraries that the dynamic linker loads
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "a b.alloctrace")
	for _, c := range []struct {
		args   []string
		status int
		says   string // a regular expression
		files  []string
	}{
		{[]string{"-o", to, "/bin/ls", "-l", "-calls", dir}, whole, `has \d+ events of \S*ls, process \d+; live at the end are .* in \d+ blocks?, at the peak .*\n.*at most .* resident\n`, []string{"a b.alloctrace"}},
		{[]string{"-o", to, "/bin/sh", "-c", "exit 7"}, 7, " has ", []string{"a b.alloctrace"}},
		{[]string{"-o", to, "/bin/sh", "-c", "kill -9 $$"}, 128 + 9, " has ", []string{"a b.alloctrace"}},
		{[]string{"-o", to, "-children", "/bin/sh", "-c", "ls; ls; exec ls"}, whole, "(?s)(has .*){4}", []string{"a b.alloctrace", "a b.alloctrace.PID", "a b.alloctrace.PID", "a b.alloctrace.PID"}},
		{[]string{"-o", to, "-limit", "300KiB", "/bin/ls"}, damaged, "events were lost: there was no room", []string{"a b.alloctrace"}},
		{[]string{"-o", to, os.Args[0], "-test.run=^$"}, whole, "", nil}, // of Go: its malloc is not C's, or seldom called
		{[]string{"-o", to, "/bin/sh", "-c", "exec env -u LD_PRELOAD ls"}, whole, "(?s)env, process .*executed another program, which could not be recorded\n", []string{"a b.alloctrace"}},
		{[]string{"-o", dir, "/bin/ls"}, failed, "it is a directory", nil},
		{[]string{"-o", "/bin/../bin/ls", "/bin/ls"}, failed, "it is the program", nil},
		{[]string{"-o", to, "/no/such/program"}, failed, "no such file", nil},
		{[]string{"-o", filepath.Join(dir, "no", "x"), "/bin/ls"}, failed, "no such file", nil},
		{[]string{"-o", "-", "/bin/ls"}, failed, "give a file", nil},
		{[]string{"-calls", "65", "/bin/ls"}, failed, "from 0 to 64", nil},
		{[]string{"-limit", "x", "/bin/ls"}, failed, "no number of bytes", nil},
		{nil, failed, "usage: alloctrace record", nil},
	} {
		status, said := runRecord(c.args...)
		if c.says == "" { // a program may be static
			if status != whole && (status != failed || !strings.Contains(said, "nothing was recorded")) {
				t.Errorf("record %q exits with %d: %s", c.args, status, said)
			}
			continue
		}
		if status != c.status || !regexp.MustCompile(c.says).MatchString(said) || strings.Contains(said, "\r") {
			t.Errorf("record %q exits with %d and says %q, want %d and %q", c.args, status, said, c.status, c.says)
		}
		if c.files == nil {
			continue
		}
		paths, _ := filepath.Glob(filepath.Join(dir, "*"))
		var names []string
		for _, path := range paths {
			if r, err := recording.Open(path); err != nil {
				t.Error(err)
			} else {
				r.Close()
			}
			names = append(names, regexp.MustCompile(`\.\d+(\.\d+)?$`).ReplaceAllString(filepath.Base(path), ".PID"))
			os.Remove(path)
		}
		if slices.Sort(names); !slices.Equal(names, c.files) {
			t.Errorf("record %q leaves %q, want %q", c.args, names, c.files)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".alloctrace*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}
