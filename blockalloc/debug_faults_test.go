package blockalloc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// faultVariable names the program that this test binary is to be.
const faultVariable = "ALLOCTRACE_TEST_REPORT_FAULTS"

var (
	faultSink byte
	page      = os.Getpagesize()
	guarded   = blockalloc.DebugOptions{Guard: true, Stack: 64}
	unmapping = blockalloc.DebugOptions{Guard: true, Quarantine: -1}
)

//go:noinline
func debugReader(b blockalloc.Block, offset int) { faultSink += beyond(b, offset, 1)[0] }

func newGuarded(o blockalloc.DebugOptions) *blockalloc.Debug {
	return blockalloc.NewDebug(new(blockalloc.Heap), o)
}

// faulting are programs that crash, in a goroutine of their own; what Go says of
// it, and the report: its first line and who freed the block.
var faulting = []struct {
	name    string
	run     func()
	crash   string
	report  string
	isFreed bool
}{
	{"read past the end", func() {
		debugReader(debugMaker(newGuarded(guarded), 64), 64)
	}, "debugReader", "access past the end of a block: at byte 64 of block ADDR of 64 B aligned to 8", false},
	{"write before the start", func() {
		debugWriter(debugMaker(newGuarded(guarded), uintptr(page)), -1)
	}, "debugWriter", fmt.Sprintf("access before the start of a block: at byte -1 of block ADDR of %d B aligned to 8", page), false},
	{"write after free", func() {
		d := newGuarded(guarded)
		b := debugMaker(d, 64)
		_ = debugOwner(d, b)
		debugWriter(b, 10)
	}, "debugWriter", "block used after it was freed: at byte 10 of block ADDR of 64 B aligned to 8", true},
	{"read of an unmapped block", func() {
		d := newGuarded(unmapping)
		debugMaker(d, 64) // between two others the hole is too small for the runtime's own mappings
		b := debugMaker(d, 64)
		debugMaker(d, 64)
		_ = debugOwner(d, b)
		debugReader(b, 7)
	}, "debugReader", "block used after it was freed: at byte 7 of block ADDR of 64 B aligned to 8", true},
	{"read past the end while others allocate", func() {
		d := newGuarded(guarded)
		var started sync.WaitGroup
		for range 3 {
			started.Add(1)
			go func() {
				for i := 0; ; i++ {
					b := debugMaker(d, uintptr(1+i%9000))
					if i == 20 {
						started.Done()
					}
					_ = debugOwner(d, b)
				}
			}()
		}
		b := debugMaker(newGuarded(unmapping), 64)
		started.Wait()
		debugReader(b, 65)
	}, "debugReader", "access past the end of a block: at byte 65 of block ADDR of 64 B aligned to 8", false},
}

// quiet are programs that crash for another reason, or not at all, and of which
// nothing is reported.
var quiet = []struct {
	name  string
	run   func()
	crash string // nothing if the program just ends
}{
	{"no fault", func() {
		d := newGuarded(unmapping)
		b := debugMaker(d, 64)
		if err := d.Catch(func() { debugWriter(b, 64) }); err == nil {
			panic("nothing was caught")
		}
		_ = debugOwner(d, b)
	}, ""},
	{"nil dereference", func() {
		debugMaker(newGuarded(guarded), 64)
		var nobody *[10]int
		nobody[page%7] = 1
	}, "nil pointer dereference"},
	{"ordinary panic", func() {
		b := debugMaker(newGuarded(guarded), 64)
		panic(fmt.Sprintf("at addr=%#x", b.Addr()+64))
	}, "panic: at addr=0x"},
	{"fault elsewhere", func() {
		d := newGuarded(guarded)
		debugMaker(d, 64)
		blockalloc.TellFaults(nil)
		debugReader(debugMaker(d, 64), 64)
	}, "unexpected fault address 0x"},
	{"watcher killed", func() {
		killWatcher()
		d := newGuarded(unmapping)
		for range 1000 {
			_ = debugOwner(d, debugMaker(d, 64))
		}
	}, ""},
	{"watcher killed before a fault", func() {
		killWatcher()
		debugReader(debugMaker(newGuarded(guarded), 64), 64)
	}, "unexpected fault address 0x"},
}

// killWatcher ends the watcher and returns when it has been noticed.
func killWatcher() {
	p, err := os.FindProcess(blockalloc.WatcherPid())
	if err != nil {
		panic(err)
	}
	if err := p.Kill(); err != nil {
		panic(err)
	}
	d := newGuarded(unmapping)
	for !blockalloc.IsFaultPipeBroken() {
		_ = debugOwner(d, debugMaker(d, 64))
	}
}

// asFaultProgram is what the test binary does instead of a test when it is one of
// these programs.
func asFaultProgram() {
	name := os.Getenv(faultVariable)
	if name == "" {
		return
	}
	for range 2 { // the second does nothing
		if err := blockalloc.ReportFaults(); err != nil {
			panic(err)
		}
	}
	var run func()
	for _, p := range faulting {
		if p.name == name {
			run = p.run
		}
	}
	for _, p := range quiet {
		if p.name == name {
			run = p.run
		}
	}
	if run == nil {
		run = morePrograms[name]
	}
	done := make(chan struct{})
	go func() {
		run()
		close(done)
	}()
	<-done
	os.Exit(0)
}

// morePrograms are those of other files.
var morePrograms = map[string]func(){
	"panic on fault": func() {
		debug.SetPanicOnFault(true)
		debugReader(debugMaker(newGuarded(guarded), 64), 64)
	},
}

// faultProgram returns the command that runs a program. Its output ends when all that
// hold it open have ended, the watcher too.
func faultProgram(t *testing.T, name string) (*exec.Cmd, *strings.Builder) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestReportFaults$")
	cmd.Env = append(os.Environ(), faultVariable+"="+name, "GORACE=atexit_sleep_ms=0")
	cmd.WaitDelay = time.Minute
	var out strings.Builder
	cmd.Stderr = &out
	return cmd, &out
}

// runFaultProgram returns what a program writes to standard error, or reports that it
// cannot be started.
func runFaultProgram(t *testing.T, name string) (stderr string, err error, ok bool) {
	t.Helper()
	cmd, out := faultProgram(t, name)
	if err := cmd.Start(); err != nil {
		t.Logf("emulated: this program cannot start itself: %v", err)
		return "", nil, false
	}
	err = cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("%s: a process remains: %v\n%s", name, err, out)
	}
	return out.String(), err, true
}

var faultFrames = regexp.MustCompile(`(?m)^\t\t(debug_faults\w*_test\.go:LINE blockalloc_test\.\S*)\n?`)

// reportIn returns the report in what a program wrote, or nothing.
func reportIn(stderr string) string {
	_, report, ok := strings.Cut(stderr, "\nblockalloc: Debug: ")
	if !ok {
		return ""
	}
	return strings.TrimSpace(faultFrames.ReplaceAllString(stable(errors.New(report))+"\n", ""))
}

func TestReportFaults(t *testing.T) {
	asFaultProgram()
	if !hasSystem {
		if err := blockalloc.ReportFaults(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("ReportFaults: %v, want ErrUnsupported", err)
		}
		return
	}
	for _, p := range faulting {
		times := 1
		if strings.HasSuffix(p.name, "allocate") {
			times = repetitions
		}
		t.Run(p.name, func(t *testing.T) {
			for i := range times {
				stderr, err, ok := runFaultProgram(t, p.name)
				if !ok {
					return
				}
				want := p.report + "\n\tallocated by\n\t\tdebug_report_test.go:LINE blockalloc_test.debugMaker"
				if p.isFreed {
					want += "\n\tfreed by\n\t\tdebug_report_test.go:LINE blockalloc_test.debugOwner"
				}
				if got := reportIn(stderr); err == nil || got != want || !strings.Contains(stderr, "unexpected fault address 0x") || !strings.Contains(stderr, p.crash) {
					t.Fatalf("round %d: %v: the report is\n%s\nwant\n%s\nin\n%s", i, err, got, want, stderr)
				}
			}
		})
	}
	for _, p := range quiet {
		t.Run(p.name, func(t *testing.T) {
			stderr, err, ok := runFaultProgram(t, p.name)
			switch {
			case !ok:
			case p.crash == "" && (err != nil || stderr != ""):
				t.Errorf("%v, and it said\n%s", err, stderr)
			case p.crash != "" && (err == nil || !strings.Contains(stderr, p.crash) || reportIn(stderr) != ""):
				t.Errorf("%v, want %q and no report:\n%s", err, p.crash, stderr)
			}
		})
	}
	t.Run("panic on fault", func(t *testing.T) {
		stderr, err, ok := runFaultProgram(t, "panic on fault")
		if ok && (err == nil || !strings.HasPrefix(reportIn(stderr), "access past the end of a block: at byte 64 ")) {
			t.Errorf("%v: there is no report in\n%s", err, stderr)
		}
	})
}

// repetitions of what depends on the order in which things happen.
var repetitions = map[bool]int{true: 100, false: 10}[allModes]

// TestReportFaultsInterleaved: the watcher finds the fault wherever a record stands in
// the crash output, and knows 1024 blocks that are gone.
func TestReportFaultsInterleaved(t *testing.T) {
	if !hasSystem {
		return
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "told"))
	if err != nil {
		t.Fatal(err)
	}
	told := func(run func()) string { // what a watcher is told meanwhile
		t.Helper()
		if err := errors.Join(file.Truncate(0), seek(file)); err != nil {
			t.Fatal(err)
		}
		blockalloc.TellFaults(file)
		run()
		blockalloc.TellFaults(nil)
		data, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	d := newGuarded(guarded)
	var b, other, gone blockalloc.Block
	before := told(func() { b = debugMaker(d, 64) })
	record := told(func() { other = debugMaker(d, 64) })
	if n := len(told(func() { deep(100, func() { gone = debugMaker(d, 64) }) })); n > 512 {
		t.Errorf("a record with 64 frames has %d bytes, more than a pipe takes in one piece", n)
	}
	mustFree(t, d, gone)
	crash := fmt.Sprintf("fatal error: fault\n[signal SIGSEGV: segmentation violation code=0x2 addr=%#x pc=0x4b1c2d]\n\ngoroutine 1 [running]:\n", b.Addr()+66)
	want := "access past the end of a block: at byte 66 of block ADDR of 64 B aligned to 8\n\tallocated by\n\t\tdebug_report_test.go:LINE blockalloc_test.debugMaker"
	for i := range len(crash) + 1 {
		out := blockalloc.WatchFaults(before + crash[:i] + record + crash[i:])
		if got := reportIn(out); got != want {
			t.Fatalf("a record after %q: the report is %q, want %q", crash[:i], got, want)
		}
	}
	for name, stream := range map[string]string{
		"nothing":           "",
		"no crash":          before + record,
		"an unknown block":  record + crash,
		"half a record":     before[:len(before)/2],
		"a broken record":   "\x02A 1 2\x03\x02\x03\x02F ?\x03\x02U\x03" + record + crash,
		"half a line":       before + crash[:strings.Index(crash, " pc=")],
		"a word in a panic": before + strings.Replace(crash, "[signal", "panic: [signal", 1),
	} {
		if out := blockalloc.WatchFaults(stream); out != "" {
			t.Errorf("%s: %s", name, out)
		}
	}
	freed := told(func() { mustFree(t, d, b) })
	if out := reportIn(blockalloc.WatchFaults(before + crash + freed)); out != want {
		t.Errorf("a free after the crash changes the report: %s", out)
	}
	if out := reportIn(blockalloc.WatchFaults(before + freed + crash)); !strings.HasPrefix(out, "block used after it was freed: at byte 66 ") || !strings.Contains(out, "freed by") {
		t.Errorf("after a free: %s", out)
	}
	mustFree(t, d, other)
	mustClose(t, d)

	// Of two blocks at one address the last is meant; and the oldest are forgotten.
	d = newGuarded(unmapping)
	var first blockalloc.Block
	cycle := told(func() { first = debugMaker(d, 64); mustFree(t, d, first) })
	if n := strings.Count(cycle, "\x02"); n != 3 || !strings.HasPrefix(cycle[strings.LastIndexByte(cycle, 2):], "\x02U ") {
		t.Errorf("an allocation, a free and an unmapping are %d records: %q", n, cycle)
	}
	crash = fmt.Sprintf("[signal 0xc0000005 code=0x0 addr=%#x pc=0x4b1c2d]\n", first.Addr()+1)
	if out := reportIn(blockalloc.WatchFaults(cycle + cycle + crash)); !strings.HasPrefix(out, "block used after it was freed: at byte 1 ") {
		t.Errorf("an unmapped block: %s", out)
	}
	crash = fmt.Sprintf("[signal SIGSEGV: segmentation violation code=0x1 addr=%#x pc=0x4b1c2d]\n", 0x1001)
	for _, more := range []int{1023, 1024} {
		var stream strings.Builder
		for i := range more + 1 { // blocks of 1 byte at 0x1000 and every page after it
			addr := int64(1+i) << 12
			fmt.Fprintf(&stream, "\x02A %s 2 1 %[1]s 2s 0 0\x03\x02F %[1]s\x03\x02U %[1]s\x03", strings36(addr))
		}
		if out := blockalloc.WatchFaults(stream.String() + crash); (out != "") != (more == 1023) {
			t.Errorf("%d blocks later: %q", more, out)
		}
	}
	mustClose(t, d)
}

func seek(f *os.File) error {
	_, err := f.Seek(0, 0)
	return err
}

func strings36(n int64) string { return strconv.FormatInt(n, 36) }
