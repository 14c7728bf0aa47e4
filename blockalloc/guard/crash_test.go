package guard_test

import (
	"os"
	rdebug "runtime/debug"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/pages"
	"github.com/alloctrace/alloctrace/internal/process"
)

const variable = "ALLOCTRACE_TEST_CRASH"

// TestCrash: with Options.Crash, the process ends though everything recovers, and what it printed last, also to the file of
// SetCrashOutput, has the three stacks, though OnReport panics. Without OnReport a report is printed. A fault that nothing has caught ends the process
// with its address.
func TestCrash(t *testing.T) {
	if !pages.Supported {
		return
	}
	if mode := os.Getenv(variable); mode != "" {
		crash(t, mode, os.Getenv(variable+"_FILE"))
		return
	}
	if !process.CanStart(t) {
		return
	}
	stacks := []string{"guard: Free(block 0x", "block already freed", "allocated by", "guard_test.allocator", "freed first by", "guard_test.releaser", "freed again by", "guard_test.crash"}
	for mode, want := range map[string]struct {
		text []string
		ends bool // by a crash
	}{
		"crash": {append([]string{"panic: "}, stacks...), true},
		"panic": {append([]string{"panic: "}, stacks...), true},
		"print": {append(stacks, "still running"), false},
		"fault": {[]string{"unexpected fault address 0x", "guard_test.accessor"}, true},
	} {
		t.Run(mode, func(t *testing.T) {
			file := t.TempDir() + "/crash"
			out, err := process.Again(t, variable+"="+mode, variable+"_FILE="+file).CombinedOutput()
			if (err != nil) != want.ends {
				t.Errorf("%v", err)
			}
			wantInOrder(t, string(out), want.text)
			if want.ends {
				if mode == "fault" { // the first line is not in the file, but the address is
					want.text[0] = "addr=0x"
				}
				crashed, _ := os.ReadFile(file)
				wantInOrder(t, string(crashed), want.text)
			}
		})
	}
}

func wantInOrder(t *testing.T, text string, want []string) {
	t.Helper()
	rest := text
	for _, w := range want {
		_, after, ok := strings.Cut(rest, w)
		if !ok {
			t.Errorf("%q is not in it, or not where it belongs:\n%s", w, text)
			return
		}
		rest = after
	}
}

func crash(t *testing.T, mode, file string) {
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := rdebug.SetCrashOutput(f, rdebug.CrashOptions{}); err != nil {
		t.Fatal(err)
	}
	o := guard.Options{Rate: 1, Crash: mode == "crash" || mode == "panic"}
	if mode == "panic" {
		o.OnReport = func(*debug.Report) { panic("on purpose") }
	}
	a := guard.New(new(blockalloc.Heap), o)
	b := allocator(t, a, 100)
	releaser(t, a, b)
	if mode == "fault" {
		accessor(pointer(b, 3), true)
		return
	}
	func() {
		defer func() { _ = recover() }()
		_ = a.Free(b)
	}()
	_, _ = os.Stderr.WriteString("still running\n")
}
