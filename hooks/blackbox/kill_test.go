package blackbox

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/pages"
	"github.com/alloctrace/alloctrace/internal/process"
)

// programVariable has the test binary be a program: its name, and the path of its box.
const programVariable = "ALLOCTRACE_BLACKBOX"

func TestMain(m *testing.M) {
	if name, path, ok := strings.Cut(os.Getenv(programVariable), " "); ok {
		programs[name](path)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program returns a command that runs one of programs.
func program(t *testing.T, name, path string) *exec.Cmd {
	t.Helper()
	if process.Emulated() {
		t.Skip("the processor is emulated: the emulator would be killed")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), programVariable+"="+name+" "+path)
	return cmd
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const stormers = 3

// numbered returns event n of a goroutine, from 0 on. One in 64 is a failure.
func numbered(g, n int) (e alloctrace.Event, err error) {
	e = alloctrace.Event{Kind: alloctrace.Kind(1 + n%4), Addr: uintptr(g)<<24 | uintptr(n), Size: uintptr(n*7 + g), Align: 1 << (n % 30)}
	if n%64 == 63 {
		e.Kind, err = alloctrace.FreeFailed, fmt.Errorf("failure %d of %d", n, g)
	}
	return e, err
}

// numberOf returns the goroutine and number of an event that numbered has made.
func numberOf(e Event) (g, n int, err error) {
	g, n = int(e.Addr>>24), int(e.Addr&(1<<24-1))
	made, failure := numbered(g, n)
	want := Event{Time: e.Time, Kind: made.Kind, Addr: uint64(made.Addr), Size: uint64(made.Size), Align: uint64(made.Align), Child: e.Child}
	if failure != nil {
		want.Err = failure.Error()
		if e.Kind == 0 {
			return g, n, nil // it has been forgotten
		}
	}
	if e != want {
		err = fmt.Errorf("event %+v was never observed, but %+v", e, want)
	}
	return g, n, err
}

// A ledger is memory that outlives the process too, where each goroutine of a storm writes how many events it has observed.
type ledger struct{ words *[stormers][16]atomic.Int64 }

const ledgerSize = 64 << 10

func openLedger(path string) (l ledger, f *os.File, err error) {
	if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return l, nil, err
	}
	if err = f.Truncate(ledgerSize); err != nil {
		return l, nil, err
	}
	p, err := pages.MapFile(f, ledgerSize)
	return ledger{(*[stormers][16]atomic.Int64)(p)}, f, err
}

var programs = map[string]func(path string){
	// storm observes numbered events in several goroutines, beside allocations that a Profile samples, until it is killed.
	"storm": func(path string) {
		l, _, err := openLedger(path + ".ledger")
		check(err)
		profile := heapprofile.New(heapprofile.Options{Rate: 4096, Peak: true})
		b, err := Create(path, Options{Size: minSize, Profile: profile, Period: time.Millisecond})
		check(err)
		mem := alloctrace.Wrap(&blockalloc.Pool{}, alloctrace.WithName("storm"), alloctrace.WithHooks(profile, b))
		b.Watch(mem)
		for g := range stormers {
			part := b.Attach(&alloctrace.Attachment{Child: fmt.Sprint("stormer ", g)})
			go func() {
				for n := range 1 << 24 {
					e, err := numbered(g, n)
					observe(part, e, err)
					l.words[g][0].Store(int64(n + 1))
					if n%1000 == 999 && g > 0 {
						time.Sleep(10 * time.Microsecond)
					}
				}
			}()
		}
		pages := mem.Child("pages")
		for n := 0; ; n++ {
			block, err := pages.Allocate(blockalloc.BlockLayout(1 << (6 + n%8)))
			check(err)
			check(pages.Free(block))
			if n == 100 {
				b.Flush()
				fmt.Println("storming")
			}
			if n%100 == 0 {
				time.Sleep(10 * time.Microsecond)
			}
		}
	},

	"exit": func(path string) { hold(path); os.Exit(3) },

	"panic": func(path string) { hold(path); panic("on purpose") },

	"fatal": func(path string) {
		hold(path)
		var l lock
		l.unlock()
	},

	// replaced is a program whose file is another one by the time that it makes a box.
	"replaced": func(path string) {
		file, err := os.Executable()
		check(err)
		check(os.Rename(file+".new", file))
		hold(path)
	},

	"overflow": func(path string) { hold(path); overflow(0) },

	// oom allocates until the kernel kills it.
	"oom": func(path string) {
		profile := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true}) // exact: no more than the limit
		b, err := Create(path, Options{Profile: profile, Period: time.Millisecond})
		check(err)
		mem := alloctrace.Wrap(&blockalloc.Pool{}, alloctrace.WithName("all"), alloctrace.WithHooks(profile, b))
		b.Watch(mem)
		small, err := mem.Child("index").Allocate(blockalloc.BlockLayout(1 << 20))
		check(err)
		check(fillForever(mem.Child("cache"), b))
		check(mem.Free(small))
	},
}

// hold holds a block until the box of the program says so.
func hold(path string) {
	profile := heapprofile.New(heapprofile.Options{Rate: 1})
	b, err := Create(path, Options{Profile: profile, Period: time.Millisecond})
	check(err)
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("all"), alloctrace.WithHooks(profile, b))
	b.Watch(mem)
	_, err = mem.Child("held").Allocate(blockalloc.BlockLayout(4096))
	check(err)
	for c := new(Contents); c.Live.Bytes == 0; time.Sleep(time.Millisecond) {
		c, err = Open(path)
		check(err)
	}
	_, err = mem.Allocate(blockalloc.BlockLayout(128)) // the last event
	check(err)
}

// TestKilled kills a storm at a random moment, again and again: the box has all that was observed and that it has room for, nothing
// that was not, and what was live.
func TestKilled(t *testing.T) {
	rounds := 12
	if requireAll {
		rounds = 1000
	}
	dir := filepath.Dir(newPath(t))
	events := 0
	for round := range rounds {
		path := filepath.Join(dir, fmt.Sprint(round, ".box"))
		cmd := program(t, "storm", path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("the storm says %q: %v", line, err)
		}
		time.Sleep(rand.N(20 * time.Millisecond))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		c := mustOpen(t, path)
		checkStorm(t, path, c)
		if len(c.Proxies) != 2 || c.Proxies[0].Stats.Allocations < 100 || c.Build.Go == "" {
			t.Errorf("the numbers are %+v", c.Proxies)
		}
		events += len(c.Events)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		if runtime.GOOS != "windows" {
			_, _ = os.Remove(path), os.Remove(path+".ledger")
		}
	}
	t.Logf("%d boxes with %d events", rounds, events)
}

// checkStorm holds a box against the ledger.
func checkStorm(t *testing.T, path string, c *Contents) {
	t.Helper()
	l, f, err := openLedger(path + ".ledger")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	defer func() { _ = pages.DetachFile(unsafe.Pointer(l.words), ledgerSize) }()
	if len(c.Damage) != 0 || !c.Closed.IsZero() {
		t.Errorf("the damage is %q; it was closed at %v", c.Damage, c.Closed)
	}
	var first, last [stormers]int
	for g := range first {
		first[g], last[g] = -1, -1
	}
	for i, e := range c.Events {
		if e.Addr>>24 >= stormers || e.Kind == 0 && e.Addr == 0 || e.Child == "pages" {
			if e.Child != "pages" {
				t.Errorf("event %+v was never observed", e)
			}
			continue
		}
		g, n, err := numberOf(e)
		if err != nil || e.Child != fmt.Sprint("stormer ", g) && e.Kind != 0 {
			t.Errorf("child %q: %v", e.Child, err)
			continue
		}
		if n <= last[g] || i > c.Gapless && first[g] >= 0 && n != last[g]+1 {
			t.Errorf("event %d of goroutine %d comes after %d", n, g, last[g])
		}
		if i >= c.Gapless && first[g] < 0 {
			first[g] = n
		}
		last[g] = n
	}
	all := len(c.Events)-c.Gapless < eventsOf(t, path)-1 // nothing was overwritten
	for g := range last {
		completed := int(l.words[g][0].Load())
		if first[g] >= 0 || all { // else others have overwritten its last events since
			if last[g]+1 != completed && last[g] != completed {
				t.Errorf("goroutine %d has completed %d events, the last in the box is %d", g, completed, last[g]+1)
			}
			if all && first[g] > 0 {
				t.Errorf("the box begins with event %d of goroutine %d, though there was room", first[g], g)
			}
		}
	}
	for _, s := range c.Live.Sites {
		if len(s.Stack) == 0 || !strings.Contains(s.Stack[0].Function, "blackbox.") {
			t.Errorf("a site has the stack %+v", s.Stack)
		}
	}
}

// eventsOf returns how many events of a processor a box has room for.
func eventsOf(t *testing.T, path string) int {
	t.Helper()
	b, err := readFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := parseHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	return int(l.events)
}

// TestOld: the box of the process before is kept, once.
func TestOld(t *testing.T) {
	path := newPath(t)
	before := 0
	for range 3 {
		cmd := program(t, "exit", path)
		_ = cmd.Run()
		if got := mustOpen(t, path).PID; got != cmd.Process.Pid && runtime.GOOS != "windows" { // Wine has numbers of its own
			t.Errorf("the box is of process %d, want %d", got, cmd.Process.Pid)
		}
		if before != 0 {
			if old := mustOpen(t, path+".old"); old.PID != before || len(old.Events) != 2 {
				t.Errorf("the old box is of process %d with %d events, want %d with 2", old.PID, len(old.Events), before)
			}
		}
		before = mustOpen(t, path).PID
	}
}

// TestEnds: however a program ends by itself, the box has its last event and what is live.
func TestEnds(t *testing.T) {
	for _, name := range []string{"exit", "panic", "fatal", "overflow"} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			cmd := program(t, name, path)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() == 1 {
				t.Fatalf("the program ends with %v:\n%s", err, out)
			}
			c := mustOpen(t, path)
			if n := len(c.Events); n != 2 || c.Events[1].Size != 128 || c.Events[1].Child != "" || !c.Closed.IsZero() || len(c.Damage) != 0 {
				t.Errorf("the last events are %+v; damage %q, closed at %v", c.Events, c.Damage, c.Closed)
			}
			if len(c.Live.Sites) == 0 || !strings.HasSuffix(c.Live.Sites[0].Stack[0].Function, "blackbox.hold") {
				t.Errorf("live were %+v", c.Live)
			}
			if len(c.Proxies) != 2 || c.Proxies[1].Child != "held" || c.Proxies[1].Stats.LiveBytes != 4096 {
				t.Errorf("the numbers are %+v", c.Proxies)
			}
		})
	}
}
