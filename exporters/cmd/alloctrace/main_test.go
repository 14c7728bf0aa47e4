package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/fields"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// argsVariable has arguments, a line each, with which this test binary is the program.
const argsVariable = "ALLOCTRACE_TEST_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(argsVariable); args != "" {
		os.Exit(run(strings.Split(args, "\n"), os.Stdout, os.Stderr))
	}
	if path := os.Getenv(leakVariable); path != "" {
		if err := leakUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// newBox returns the path of a box that has something of everything.
func newBox(t *testing.T) string {
	t.Helper()
	dir := os.TempDir() // Windows cannot remove a file that was mapped before the process ends
	if runtime.GOOS != "windows" {
		dir = t.TempDir()
	}
	f, err := os.CreateTemp(dir, "*.box")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	profile := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true})
	box, err := blackbox.Create(f.Name(), blackbox.Options{Profile: profile})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithName("mem"), alloctrace.WithHooks(profile, box))
	box.Watch(mem)
	first, err := mem.Allocate(blockalloc.BlockLayout(64 << 10))
	if err == nil {
		_, err = mem.Child("cache").Allocate(blockalloc.BlockLayout(4096))
	}
	if err = errors.Join(err, mem.Free(first)); err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Allocate(blockalloc.BlockLayout(2 << 20)); err == nil {
		t.Fatal("the limit lets through what is too much")
	}
	if err := box.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// TestBlackbox: what a box has is printed in each form, and the status says whether it is whole.
func TestBlackbox(t *testing.T) {
	path := newBox(t)
	var out, errOut bytes.Buffer
	runs := func(want int, args ...string) {
		t.Helper()
		out.Reset()
		errOut.Reset()
		if got := run(args, &out, &errOut); got != want {
			t.Errorf("%q exits with %d, want %d: %s", args, got, want, &errOut)
		}
	}
	runs(whole, "blackbox", path)
	for _, want := range []string{
		"\nclosed ", "\n\"mem\": live 4 KiB in 1 block", "\n\"mem\", child \"cache\": live 4 KiB in 1 block", ": 4 KiB in 1 block\n  4 KiB in 1 block, allocator=\"cache\": alloctrace.newBox (main_test.go:",
		": 68 KiB in 2 blocks\n", "the last 4 of 4 events", " allocated         64 KiB aligned to 64 KiB at 0x", "allocate failed   2 MiB aligned to 2 MiB at 0x0: blockalloc: Limit.Allocate(2097152 B",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, &out)
		}
	}
	runs(whole, "blackbox", "-events", "0", path)
	if strings.Contains(out.String(), "allocate failed") {
		t.Errorf("there are events in\n%s", &out)
	}

	runs(whole, "blackbox", "-json", path)
	names := slices.DeleteFunc(fields.Object(t, out.Bytes()), func(name string) bool {
		return strings.HasPrefix(name, "proxies[].stats.") || strings.HasPrefix(name, "peak") || strings.HasPrefix(name, "build.settings.")
	})
	var c map[string]any
	if err := json.Unmarshal(out.Bytes(), &c); err != nil || len(c["events"].([]any)) != 4 {
		t.Errorf("the JSON has %v; %v", c["events"], err)
	}
	fields.Compare(t, "testdata/fields.txt", append(names, // those that say something only sometimes
		"damage array", "omitted number", "live.omitted number", "build.id string", "build.module string", "build.version string",
		"live.bytes_error number", "live.sites[].bytes_error number", "peak object"))

	saved := filepath.Join(t.TempDir(), "peak.pb.gz")
	for want, args := range map[int64][]string{4096: {"-pprof", "-"}, 68 << 10: {"-pprof", saved, "-peak"}} {
		runs(whole, append(append([]string{"blackbox"}, args...), path)...)
		written := out.Bytes()
		if args[1] != "-" {
			var err error
			if written, err = os.ReadFile(saved); err != nil {
				t.Fatal(err)
			}
		}
		p, err := profile.ParseData(written)
		if err != nil {
			t.Fatal(err)
		}
		var bytes int64
		for _, s := range p.Sample {
			bytes += s.Value[3]
			if f := s.Location[0].Line[0].Function; f.Name != "github.com/alloctrace/alloctrace/exporters/cmd/alloctrace.newBox" {
				t.Errorf("%d bytes are of %s", s.Value[3], f.Name)
			}
		}
		if bytes != want || p.SampleType[3].Type != "inuse_space" || p.Period != 1 {
			t.Errorf("%d bytes in the profile, want %d:\n%v", bytes, want, p)
		}
	}

	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.box")
	if err := os.WriteFile(cut, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	runs(damaged, "blackbox", "-otlp", "-", cut)
	if !strings.Contains(out.String(), `{"key":"allocator.blackbox.damage",`) {
		t.Errorf("of half a file the trace is\n%s", &out)
	}
	runs(damaged, "blackbox", cut)
	if !strings.HasPrefix(out.String(), "damaged: the file has ") {
		t.Errorf("of half a file the text is\n%s", &out)
	}
	if err := os.WriteFile(cut, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	runs(failed, "blackbox", cut)
	if got := errOut.String(); !strings.HasPrefix(got, "alloctrace: blackbox: blackbox: Open(") || strings.Count(got, "\n") != 1 {
		t.Errorf("of another file the error is %q", got)
	}
	for _, form := range []string{"-pprof", "-otlp"} {
		runs(failed, "blackbox", form, filepath.Join(path, "below"), path)
	}
}

// TestUsage: whoever does not know the arguments is told, and exits with 2 unless it was asked for.
func TestUsage(t *testing.T) {
	for want, all := range map[int][][]string{
		whole:  {{"help"}, {"-h"}, {"help", "blackbox"}, {"blackbox", "-help"}, {"blackbox", "-h", "x"}},
		failed: {{}, {"nothing"}, {"help", "nothing"}, {"blackbox"}, {"blackbox", "a", "b"}, {"blackbox", "-x", "a"}, {"blackbox", "-peak", "a"}, {"blackbox", "-json", "-pprof", "x", "a"}, {"blackbox", "-otlp", "x", "-pprof", "x", "a"}},
	} {
		for _, args := range all {
			var out, errOut bytes.Buffer
			if got := run(args, &out, &errOut); got != want || !strings.Contains(out.String()+errOut.String(), "usage: alloctrace ") {
				t.Errorf("%q exits with %d, want %d:\n%s%s", args, got, want, &out, &errOut)
			}
		}
	}
}
