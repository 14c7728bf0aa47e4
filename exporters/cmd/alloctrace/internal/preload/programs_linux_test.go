package preload

import (
	"debug/elf"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
)

// TestSymbols: a stack has the functions and lines of the program, and without debug information what there is.
func TestSymbols(t *testing.T) {
	program := known(t)
	bare := filepath.Join(t.TempDir(), "program-bare")
	if out, err := exec.Command(need(t, "strip", "binutils"), "-o", bare, program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for path, want := range map[string]string{program: `^one testdata/known\.c:\d+$`, bare: `^program-bare\+0x[0-9a-f]+ /.*/program-bare:0$`} {
		_, files, err := record(t, Options{Frames: 16, Parent: os.Getpid()}, path, "storm")
		if err != nil {
			t.Fatal(err)
		}
		f := only(t, files)
		symbols := f.Symbols(make(Modules))
		for e, err := range f.Events() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Size != 11 {
				continue
			}
			at := symbols.Frame(e.Stack[0], e.Number)
			if i := strings.Index(at.File, "testdata/"); i >= 0 {
				at.File = at.File[i:]
			}
			if got := fmt.Sprintf("%s %s:%d", at.Function, at.File, at.Line); !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("the caller is %q, want %q", got, want)
			}
			if len(e.Stack) < 2 || !strings.Contains(symbols.Frame(e.Stack[1], e.Number).File, "libc") && symbols.Frame(e.Stack[1], e.Number).Function != "start_thread" {
				t.Errorf("the stack is %#x", e.Stack)
			}
			break
		}
	}
}

// TestPlugins: calls of libraries have their names, though these were loaded for some events only, the one where the other was.
func TestPlugins(t *testing.T) {
	cc := need(t, "cc", "gcc libc6-dev")
	args := []string{known(t), "plugins"}
	for _, name := range []string{"first", "second", "third", "first"} {
		path := filepath.Join(t.TempDir(), name+".so")
		if err := compile(cc, "-fPIC", "-shared", "-fno-builtin", "-DNAME="+name, "-o", path, "testdata/plugin.c"); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	_, files, err := record(t, Options{Frames: 2, Parent: os.Getpid()}, args...)
	if err != nil {
		t.Fatal(err)
	}
	f := only(t, files)
	modules := make(Modules)
	for _, read := range []string{"from files", "with those of another File"} {
		symbols := f.Symbols(modules)
		var got []string
		for e, err := range f.Events() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Size == 31 {
				got = append(got, symbols.Frame(e.Stack[0], e.Number).Function)
			}
		}
		if want := strings.Fields("first first first second second second third third third first first first"); !slices.Equal(got, want) {
			t.Errorf("%s, the callers are %q, want %q", read, got, want)
		}
		for _, path := range args[2:] {
			os.Remove(path)
		}
	}
}

// TestOperators: C++'s new and delete are recorded once: of an allocator that has its own, of a library that calls malloc, and of none at all. What
// happens when there is no memory is what the program does.
func TestOperators(t *testing.T) {
	if bits.UintSize < 64 {
		t.Skip("testdata/operators.c has the names of 64 bits")
	}
	cc, dir := need(t, "cc", "gcc libc6-dev"), t.TempDir()
	program, own, throws := filepath.Join(dir, "program"), filepath.Join(dir, "own.so"), filepath.Join(dir, "libstdc++.so.6")
	for _, args := range [][]string{
		{"-o", program, "-DPROGRAM", "-Wl,--unresolved-symbols=ignore-all", "-rdynamic"},
		{"-o", own, "-shared", "-fPIC"},
		{"-o", throws, "-shared", "-fPIC", "-DTHROWS", "-Wl,-soname,libstdc++.so.6"},
	} {
		if err := compile(cc, append(args, "-O0", "-fno-builtin", "-Wno-unused-parameter", "testdata/operators.c")...); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ preload string }{"own": {own}, "none": {""}} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("LD_PRELOAD", c.preload)
			_, files, err := record(t, Options{Frames: 4, Parent: os.Getpid()}, program)
			if err != nil {
				t.Fatal(err)
			}
			f := only(t, files)
			sum := count(t, f)
			want := map[uint64]int{2000: 12}
			for size := range uint64(8) {
				want[1001+size] = 1
			}
			maps.DeleteFunc(sum.sizes, func(size uint64, _ int) bool { return size < 1001 || size > 2000 })
			if !maps.Equal(sum.sizes, want) || sum.lost+int(sum.unknown) > 0 || sum.kinds[alloctrace.AllocateFailed] != 1 {
				t.Errorf("%v of sizes %v, want %v", sum, sum.sizes, want)
			}
			for e := range f.Events() {
				if e.Kind == alloctrace.Allocated && e.Size > 1000 && e.Size < 2000 && ((e.Align == 64) != (e.Size > 1004) || e.Addr%uint64(e.Align) != 0 || len(e.Stack) == 0) {
					t.Errorf("%+v", e)
				}
			}
		})
	}
	t.Setenv("LD_PRELOAD", throws)
	if out, _, err := record(t, Options{Parent: os.Getpid()}, program, "throw"); err == nil || string(out) != "thrown 1\n" {
		t.Errorf("%v; it says %q", err, out)
	}
}

// TestMusl: a program that is linked with musl, which has no pvalloc, is recorded, by callers alone.
func TestMusl(t *testing.T) {
	program := filepath.Join(t.TempDir(), "known")
	if err := compile(need(t, "musl-gcc", "musl-tools"), "-fno-builtin", "-Dpvalloc=valloc", "-o", program, "testdata/known.c"); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]int{"storm": 3000, "close": 20_000} {
		_, files, err := record(t, Options{Frames: 16, Parent: os.Getpid()}, program, mode)
		if err != nil {
			t.Fatal(err)
		}
		if sum := count(t, only(t, files)); sum.sizes[11]+sum.sizes[66] != want || sum.lost+int(sum.unknown) > 0 {
			t.Errorf("%s: %v", mode, sum)
		}
	}
}

// TestBuild: gcc and clang build the recorder without a warning, and where there is no compiler that is said.
func TestBuild(t *testing.T) {
	for _, cc := range []string{"gcc", "clang"} {
		t.Run(cc, func(t *testing.T) {
			t.Setenv("CC", need(t, cc, cc))
			library, err := Build(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			f, err := elf.Open(library)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			symbols, err := f.ImportedSymbols()
			if err != nil || slices.ContainsFunc(symbols, func(s elf.ImportedSymbol) bool { return s.Name == "_dl_find_object" }) {
				t.Errorf("%v; programs of other C libraries would not start: the recorder needs glibc's _dl_find_object", err)
			}
		})
	}
	if _, err := Build(t.Context(), "/a b"); err == nil || !strings.Contains(err.Error(), "set TMPDIR") {
		t.Errorf("the error is %v", err)
	}
	t.Setenv("CC", "no-such-compiler")
	if _, err := Build(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "apt-get install gcc libc6-dev") {
		t.Errorf("the error is %v", err)
	}
}
