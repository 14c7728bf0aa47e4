package preload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/alloctrace/alloctrace"
)

// need returns the path of a program that a test needs, which is in a package of Debian.
func need(t testing.TB, program, in string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1" {
		t.Fatalf("there is no %s: apt-get install %s", program, in)
	} else if err != nil {
		t.Skipf("there is no %s: apt-get install %s", program, in)
	}
	return path
}

// built has what all tests use.
var built struct {
	once             sync.Once
	dir              string
	program, library string
	err              error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// build builds the library and testdata/known.c, once.
func build(t testing.TB) (program, library string) {
	t.Helper()
	cc := need(t, "cc", "gcc libc6-dev")
	b := &built
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "preload-*"); b.err != nil {
			return
		}
		if b.library, b.err = Build(context.Background(), b.dir); b.err != nil {
			return
		}
		b.program = filepath.Join(b.dir, "program")
		b.err = compile(cc, "-g", "-fno-builtin", "-o", b.program, "testdata/known.c")
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.program, b.library
}

// compile builds a C program.
func compile(cc string, args ...string) error {
	for _, path := range args {
		_, _ = os.Stat(path) // so that go test knows on what the result depends
	}
	out, err := exec.Command(cc, append([]string{"-Wall", "-Wextra", "-Werror", "-pthread"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %q: %w: %s", cc, args, err, out)
	}
	return nil
}

func known(t *testing.T) string {
	t.Helper()
	program, _ := build(t)
	return program
}

// record runs a command, and returns what it says and the files that were recorded, by name without the process ID of the command.
func record(t *testing.T, o Options, args ...string) (out []byte, files map[string]*File, err error) {
	t.Helper()
	dir := t.TempDir()
	_, library := build(t)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = o.Environ(os.Environ(), library, dir)
	out, err = cmd.Output()
	paths, _ := filepath.Glob(filepath.Join(dir, "*.[0-9]*"))
	files = make(map[string]*File)
	for _, path := range paths {
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files[strings.Replace(filepath.Base(path), fmt.Sprint(cmd.Process.Pid), "PID", 1)] = f
	}
	return out, files, err
}

// name returns the name of the first file of a process.
func name(cmd *exec.Cmd) string { return fmt.Sprintf("%d.0", cmd.Process.Pid) }

// only returns the one file there is.
func only(t *testing.T, files map[string]*File) *File {
	t.Helper()
	f := files["PID.0"]
	if len(files) != 1 || f == nil {
		t.Fatalf("recorded were %v, want PID.0", slices.Collect(maps.Keys(files)))
	}
	return f
}

// A tally is what events are, once they are seen to be in an order that can be: no address is twice live.
type tally struct {
	events, lost              int
	kinds                     [alloctrace.FreeFailed + 1]int
	sizes                     map[uint64]int // acquisitions
	threads                   map[uint32]bool
	allocated, freed, unknown uint64
	live                      map[uint64]Event
}

func (s tally) String() string {
	return fmt.Sprintf("%d events of %d threads, by kind %d, %d lost, %d releases of what is not known, %d blocks live", s.events, len(s.threads), s.kinds, s.lost, s.unknown, len(s.live))
}

func count(t *testing.T, f *File) tally {
	t.Helper()
	sum := tally{sizes: make(map[uint64]int), threads: make(map[uint32]bool), live: make(map[uint64]Event)}
	for e, err := range f.Events() {
		if err != nil {
			t.Fatal(err)
		}
		if e.Lost > 0 {
			sum.lost += int(e.Lost)
			continue
		}
		sum.events++
		sum.kinds[e.Kind]++
		sum.threads[e.Thread] = true
		switch b, live := sum.live[e.Addr]; e.Kind {
		case alloctrace.Allocated, alloctrace.Reallocated:
			if live && sum.lost == 0 {
				t.Fatalf("%+v is where %+v is live", e, b)
			}
			sum.sizes[e.Size]++
			sum.allocated += e.Size
			e.Stack = slices.Clone(e.Stack)
			sum.live[e.Addr] = e
		case alloctrace.Freeing, alloctrace.Reallocating:
			if !live {
				sum.unknown++
			}
			sum.freed += b.Size
			delete(sum.live, e.Addr)
		}
	}
	return sum
}

// TestAll: each function is recorded as it was called, and nothing else is.
func TestAll(t *testing.T) {
	program := known(t)
	for name, frames := range map[string]int{"no stacks": 0, "callers": 1, "stacks": 16} {
		t.Run(name, func(t *testing.T) {
			out, files, err := record(t, Options{Frames: frames, Parent: os.Getpid()}, program, "all")
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			f := only(t, files)
			for e, err := range f.Events() {
				if err != nil || e.Lost > 0 || e.Time < 0 || (len(e.Stack) > 0) != (frames > 0 && e.Kind != alloctrace.Reallocating && e.Kind != alloctrace.Freeing) || len(e.Stack) > frames {
					t.Errorf("%v: %+v", err, e)
				}
				fmt.Fprintf(&got, "%d %x %d %d %d\n", e.Kind, e.Addr, e.Size, e.Usable, e.Align)
			}
			if !bytes.Equal(got.Bytes(), out) {
				t.Errorf("recorded was\n%s\nand the program says\n%s", &got, out)
			}
			if f.Program != program || f.Name != "program" || f.PageSize != os.Getpagesize() || f.Parent != os.Getpid() || f.Frames != frames || f.Resident < 1<<18 {
				t.Errorf("%+v", f.Header)
			}
		})
	}
}

// TestValgrind: valgrind counts the same. There a block that is reallocated is freed, and a new one allocated.
func TestValgrind(t *testing.T) {
	valgrind := need(t, "valgrind", "valgrind")
	program := known(t)
	_, files, err := record(t, Options{Parent: os.Getpid()}, program, "walk")
	if err != nil {
		t.Fatal(err)
	}
	sum := count(t, only(t, files))
	said, err := exec.Command(valgrind, program, "walk").CombinedOutput()
	got := regexp.MustCompile(`total heap usage: .*`).FindString(strings.ReplaceAll(string(said), ",", ""))
	moved := sum.kinds[alloctrace.Reallocated]
	want := fmt.Sprintf("total heap usage: %d allocs %d frees %d bytes allocated", sum.kinds[alloctrace.Allocated]+moved, sum.kinds[alloctrace.Freeing]+moved, sum.allocated)
	if err != nil || got != want {
		t.Errorf("%v: valgrind says %q, want %q", err, got, want)
	}
}

// TestThreads: what one thread frees and another gets is recorded in that order.
func TestThreads(t *testing.T) {
	program := known(t)
	_, files, err := record(t, Options{Frames: 1, Parent: os.Getpid()}, program, "threads")
	if err != nil {
		t.Fatal(err)
	}
	f := only(t, files)
	sum := count(t, f)
	if sum.kinds[alloctrace.Reallocated] < 10_000 || sum.kinds[alloctrace.Reallocating] != sum.kinds[alloctrace.Reallocated] ||
		sum.kinds[alloctrace.Allocated]-sum.kinds[alloctrace.Freeing] != len(sum.live) || len(sum.live) > 10 || sum.unknown+uint64(sum.lost) > 0 || len(sum.threads) != 5 {
		t.Error(sum)
	}
	if len(f.chunks) < 10 {
		t.Errorf("there are %d chunks: too few for a merge to be tested", len(f.chunks))
	}
	for _, c := range f.chunks {
		if c.offset%(64<<10) != 0 { // the largest page that a kernel has
			t.Errorf("there is a chunk at byte %d, which not all kernels map", c.offset)
		}
	}
}

// TestStorm: threads that end leave their chunks to others.
func TestStorm(t *testing.T) {
	_, files, err := record(t, Options{}, known(t), "storm")
	if err != nil {
		t.Fatal(err)
	}
	f := only(t, files)
	if sum := count(t, f); sum.sizes[11] != 3000 || len(sum.threads) != 3001 || len(f.chunks) > 50 {
		t.Errorf("%d blocks, %d threads, %d chunks", sum.sizes[11], len(sum.threads), len(f.chunks))
	}
}

// TestLate: what is freed after a thread has ended takes no chunk of its own.
func TestLate(t *testing.T) {
	_, files, err := record(t, Options{Frames: 1}, known(t), "late")
	if err != nil {
		t.Fatal(err)
	}
	f := only(t, files)
	if sum := count(t, f); sum.sizes[11] != 300 || len(sum.threads) != 301 || sum.kinds[alloctrace.Freeing] < 600 || sum.lost > 0 || len(f.chunks) > 20 {
		t.Errorf("%v; %d chunks", sum, len(f.chunks))
	}
}

// TestFork: a child of fork, with the C library's function or without, has nothing of its parent's file, and one of its own if all
// processes are recorded.
func TestFork(t *testing.T) {
	program := known(t)
	for _, parent := range []int{os.Getpid(), 0} {
		_, files, err := record(t, Options{Frames: 1, Parent: parent}, program, "fork")
		if err != nil {
			t.Fatal(err)
		}
		if parent != 0 {
			only(t, files)
		} else if len(files) != 11 {
			t.Errorf("%d files, want 11", len(files))
		}
		for name, f := range files {
			want := map[uint64]int{123: 1000}
			if name == "PID.0" {
				want = map[uint64]int{77: 10}
			}
			if sum := count(t, f); !maps.Equal(sum.sizes, want) || sum.lost+len(sum.live)+int(sum.unknown) > 0 {
				t.Errorf("%s has %v of sizes %v, want %v", name, sum, sum.sizes, want)
			}
		}
	}
}

// TestVfork: what a child of vfork does is its parent's. Before that has a file it is lost.
func TestVfork(t *testing.T) {
	for _, parent := range []int{os.Getpid(), 0} {
		_, files, err := record(t, Options{Frames: 1, Parent: parent}, known(t), "vfork")
		if err != nil {
			t.Fatal(err)
		}
		if sum := count(t, only(t, files)); sum.sizes[23] != 10 || sum.sizes[22] != 9 || sum.lost != 2 || len(sum.threads) != 1 {
			t.Errorf("%v of sizes %v", sum, sum.sizes)
		}
	}
}

// TestKilled: a process that is killed has all its events.
func TestKilled(t *testing.T) {
	_, files, err := record(t, Options{Frames: 16, Parent: os.Getpid()}, known(t), "kill")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatal(err)
	}
	if sum := count(t, only(t, files)); sum.sizes[55] != 10_000 || sum.events != 10_000 || sum.lost > 0 {
		t.Error(sum)
	}
}

// TestCancelled: a thread that is to be cancelled is not in malloc.
func TestCancelled(t *testing.T) {
	_, files, err := record(t, Options{Frames: 16, Parent: os.Getpid()}, known(t), "cancel")
	if err != nil {
		t.Fatal(err)
	}
	if sum := count(t, only(t, files)); sum.sizes[34] != 20_000 || sum.lost > 0 {
		t.Error(sum)
	}
}

// TestHeadless: a process whose main thread has ended is recorded as before.
func TestHeadless(t *testing.T) {
	_, files, err := record(t, Options{Frames: 16, Parent: os.Getpid()}, known(t), "headless")
	if err != nil {
		t.Fatal(err)
	}
	f := only(t, files)
	if sum := count(t, f); sum.sizes[35] != 10_000 || sum.lost > 0 || f.Resident == 0 {
		t.Errorf("%v, %+v", sum, f.Header)
	}
	symbols := f.Symbols(make(Modules))
	for e := range f.Events() {
		if e.Size != 35 {
			continue
		}
		if got := symbols.Frame(e.Stack[0], e.Number).Function; got != "headless" {
			t.Fatalf("event %d is of %s, want headless", e.Number, got)
		}
	}
}

// TestInterrupted: events of a signal handler are in order, or lost and counted where they were. The allocator is another one.
func TestInterrupted(t *testing.T) {
	program := known(t)
	bump := filepath.Join(t.TempDir(), "bump.so")
	if err := compile(need(t, "cc", "gcc libc6-dev"), "-O2", "-fPIC", "-shared", "-fno-builtin", "-o", bump, "testdata/bump.c"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LD_PRELOAD", bump)
	_, files, err := record(t, Options{Frames: 1, Parent: os.Getpid()}, program, "interrupt")
	if err != nil {
		t.Fatal(err)
	}
	sum := count(t, only(t, files))
	for _, e := range sum.live {
		if e.Usable != 0 {
			t.Fatalf("%+v of another allocator has the usable size of the C library's", e)
		}
	}
	if sum.sizes[45] == 0 || sum.sizes[45]+sum.lost < 100 || sum.lost > 2002 || sum.sizes[24] < 1000 {
		t.Errorf("%v of sizes %v", sum, sum.sizes)
	}
}

// TestClosed: a program that closes files that are not its own is recorded to the end.
func TestClosed(t *testing.T) {
	_, files, err := record(t, Options{Frames: 16, Parent: os.Getpid()}, known(t), "close")
	if err != nil {
		t.Fatal(err)
	}
	if sum := count(t, only(t, files)); sum.sizes[66] != 20_000 || sum.events != 40_000 || sum.lost > 0 {
		t.Error(sum)
	}
}

// TestConfined: a program that may not write files, or large ones, ends as it does without the recorder.
func TestConfined(t *testing.T) {
	_, files, err := record(t, Options{Frames: 1, Parent: os.Getpid()}, known(t), "confined")
	if err != nil {
		t.Fatal(err)
	}
	f := only(t, files)
	if sum := count(t, f); sum.sizes[88] != 100 || sum.lost > 0 || f.Resident == 0 {
		t.Error(sum)
	}
	_, files, err = record(t, Options{Frames: 1, Parent: os.Getpid()}, "/bin/sh", "-c", fmt.Sprintf("ulimit -f 0; exec %q all", known(t)))
	if err != nil || files["PID.1"] != nil {
		t.Error(err, files)
	}
}

// TestAway: a process that cannot open its file any more says how many events were lost, even if it is killed.
func TestAway(t *testing.T) {
	_, files, _ := record(t, Options{Frames: 1, Parent: os.Getpid()}, known(t), "away")
	f := files["PID.00"]
	if f == nil {
		t.Fatal(files)
	}
	if sum := count(t, f); sum.sizes[99] < 1000 || sum.lost < 1000 || sum.events+sum.lost != 40_002 || f.Resident != 0 {
		t.Error(sum)
	}
}

// TestExecuted: each program that a process executes has a file.
func TestExecuted(t *testing.T) {
	out, files, err := record(t, Options{Parent: os.Getpid()}, "/bin/sh", "-c", fmt.Sprintf("exec %q all", known(t)))
	if err != nil || len(files) != 2 || files["PID.1"] == nil || !strings.HasSuffix(files["PID.0"].Program, "sh") {
		t.Fatal(err, files)
	}
	if sum := count(t, files["PID.1"]); sum.events != bytes.Count(out, []byte("\n")) {
		t.Errorf("%d events, want %d", sum.events, bytes.Count(out, []byte("\n")))
	}
}

// TestLimit: a file has its limit, the option's or that of the process, and what is lost is known to the number.
func TestLimit(t *testing.T) {
	for mode, most := range map[string]int64{"threads": 1 << 20, "limited": 0} {
		_, files, err := record(t, Options{MaxBytes: most, Frames: 16, Parent: os.Getpid()}, known(t), mode)
		if err != nil {
			t.Fatal(mode, err)
		}
		f := only(t, files)
		sum := count(t, f)
		info, err := f.in.(*os.File).Stat()
		if err != nil || info.Size() > 1<<20 || sum.lost < 40_000 || sum.events < 1000 || sum.lost+sum.events < 64_000 {
			t.Errorf("%s: %v: %v", mode, err, sum)
		}
	}
}
