package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// The tests run the program as a process of its own: the test binary, told by
// this variable to be the program.
const beProgram = "INDEXER_TEST_BE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// A run is what the program did.
type run struct {
	code           int
	stdout, stderr string
}

// program prepares a process with a temporary folder of its own. Settings are of
// the form NAME=value; those of OpenTelemetry around the test are left out.
func program(t *testing.T, settings []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // a hang fails, and does not hang the tests
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	temp := t.TempDir()
	cmd.Env = append(jaegertest.Environ(), beProgram+"=1", "TMPDIR="+temp, "TMP="+temp)
	cmd.Env = append(cmd.Env, settings...)
	return cmd
}

func runProgram(t *testing.T, settings []string, args ...string) run {
	t.Helper()
	return finish(t, program(t, settings, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) run {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return run{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// runJSON runs the program, which must succeed, and returns its report.
func runJSON(t *testing.T, settings []string, args ...string) report {
	t.Helper()
	got := runProgram(t, settings, append(args, "-json")...)
	if got.code != 0 {
		t.Fatalf("exit code %d, stderr %s", got.code, got.stderr)
	}
	var r report
	d := json.NewDecoder(strings.NewReader(got.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, got.stdout)
	}
	if d.More() {
		t.Errorf("stdout has more than one JSON object: %s", got.stdout)
	}
	if !strings.Contains(got.stderr, "scan: ") || !strings.Contains(got.stderr, "index: ") {
		t.Errorf("no progress on stderr: %q", got.stderr)
	}
	return r
}

func TestSmallFolder(t *testing.T) {
	dir := writeCorpus(t)
	model := readModel(t, dir)
	out := t.TempDir()
	const query = "mmap Größe café absent"
	r := runJSON(t, nil, "-dir", dir, "-out", out, "-query", query)

	if r.Folder != dir {
		t.Errorf("folder %s, want %s", r.Folder, dir)
	}
	if r.Index != model.size {
		t.Errorf("the index holds %+v, want %+v", r.Index, model.size)
	}
	wantAnswers(t, r.Answers, naiveAnswers(t, dir, "", "mmap", "größe", "café", "absent"))
	wantNoLeak(t, r)
	wantTraceFile(t, r)
	wantProfile(t, r)
	wantLog(t, r)
	if filepath.Dir(r.Log) != out || filepath.Dir(r.Trace.File) != out {
		t.Errorf("log %s and trace %s are not in %s", r.Log, r.Trace.File, out)
	}

	// The report for people says the same.
	text := runProgram(t, []string{"GOMAXPROCS=1"}, "-dir", dir, "-query", query)
	if text.code != 0 {
		t.Fatalf("exit code %d, stderr %s", text.code, text.stderr)
	}
	for _, a := range r.Answers {
		for _, c := range a.First {
			if want := c.File + ":"; !strings.Contains(text.stdout, want) {
				t.Errorf("%q is missing in\n%s", want, text.stdout)
			}
		}
	}
	for _, want := range []string{"live bytes", "live blocks", "blocks of up to", "64 KiB", traceName + " opens in Jaeger", heapName + " shows", logName} {
		if !strings.Contains(text.stdout, want) {
			t.Errorf("%q is missing in\n%s", want, text.stdout)
		}
	}
}

// TestOutputsAreNotIndexed runs twice with the outputs in the folder itself.
func TestOutputsAreNotIndexed(t *testing.T) {
	dir := writeCorpus(t)
	first := runJSON(t, nil, "-dir", dir, "-out", dir, "-query", "mmap")
	second := runJSON(t, nil, "-dir", dir, "-out", dir, "-query", "mmap")
	if first.Index != second.Index {
		t.Errorf("the second run found %+v, the first %+v", second.Index, first.Index)
	}
	wantTraceFile(t, second)
	wantLog(t, second)
}

// cannot skips a test that this machine cannot run, or fails it if none may be left out.
func cannot(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// standardLibrary returns the folder of the standard library, or skips the test where the
// go command, which the program asks for it too, is not there.
func standardLibrary(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if errors.Is(err, exec.ErrNotFound) {
		cannot(t, "put the go command on PATH: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	src, err := filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(string(root)), "src"))
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestStandardLibrary(t *testing.T) {
	t.Parallel()
	src := standardLibrary(t)
	r := runJSON(t, nil)
	if r.Folder != src {
		t.Errorf("folder %s, want %s", r.Folder, src)
	}
	if r.Index.Files < 5000 || r.Index.Words < 100_000 || r.Index.Occurrences < 5_000_000 {
		t.Errorf("the index holds %+v: that is not the Go standard library", r.Index)
	}
	wantAnswers(t, r.Answers, naiveAnswers(t, src, ".go", "mmap", "goroutine", "deadlock"))
	wantNoLeak(t, r)
	wantTraceFile(t, r)
	wantLog(t, r)
	wantRSS(t, r)
	if r.Built.Classes[16].Live() < 100 || r.Built.Reallocations == 0 {
		t.Errorf("%d blocks of 64 KiB and %d reallocations: too few for a real index", r.Built.Classes[16].Live(), r.Built.Reallocations)
	}
}

func TestLeak(t *testing.T) {
	dir := writeCorpus(t)
	r := runJSON(t, []string{"GOMAXPROCS=1"}, "-leak", "-dir", dir)
	if want := (leak{Region: "part 1", Blocks: 1, Bytes: blockSize}); len(r.Leaks) != 1 || r.Leaks[0] != want {
		t.Errorf("leaks are %v, want %v alone", r.Leaks, want)
	}
	if r.End.LiveBytes != blockSize || r.End.LiveBlocks != 1 {
		t.Errorf("at the end %v, want one live block of 64 KiB", r.End)
	}
	wantTraceFile(t, r)

	text := runProgram(t, nil, "-leak", "-dir", dir)
	if text.code != 0 || !strings.Contains(text.stdout, `leak:  1 block of 64 KiB, allocated in region "part `) {
		t.Errorf("exit code %d, stderr %s, stdout\n%s", text.code, text.stderr, text.stdout)
	}

	wordless := t.TempDir()
	writeFile(t, wordless, "digits.txt", "1 2 3\n")
	if got := runProgram(t, nil, "-leak", "-dir", wordless); got.code != 1 || !strings.Contains(got.stderr, "no block to forget") {
		t.Errorf("with nothing to forget: exit code %d, stderr %s", got.code, got.stderr)
	}
}

// TestBadFolder: one sentence, exit code 1, and nothing left behind.
func TestBadFolder(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "file/a.txt", "text")
	writeFile(t, dir, "textless/picture.png", "\x89PNG\x00\x00")
	writeFile(t, dir, "textless/empty.txt", "")
	writeFile(t, dir, "textless/.hidden.txt", "text")
	writeFile(t, dir, "textless/.git/config.txt", "text")
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o777); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"missing":    "",
		"file/a.txt": "not a folder",
		"textless":   "no text file",
		"empty":      "no text file",
	} {
		t.Run(name, func(t *testing.T) {
			wantBadFolder(t, program(t, nil), filepath.Join(dir, name), filepath.Join(dir, "out"), want)
		})
	}
}

// wantBadFolder runs cmd with a folder that cannot be indexed.
func wantBadFolder(t *testing.T, cmd *exec.Cmd, dir, out, want string) {
	t.Helper()
	var temp string
	for _, setting := range cmd.Env {
		if value, ok := strings.CutPrefix(setting, "TMPDIR="); ok {
			temp = value
		}
	}
	for _, args := range [][]string{{"-dir", dir}, {"-dir", dir, "-out", out}, {"-dir", dir, "-json", "-leak"}} {
		again := exec.Command(cmd.Path, args...)
		again.Env, again.SysProcAttr = cmd.Env, cmd.SysProcAttr
		got := finish(t, again)
		if got.code != 1 || got.stdout != "" {
			t.Errorf("%q: exit code %d, stdout %q; want 1 and nothing", args, got.code, got.stdout)
		}
		if strings.Count(got.stderr, "\n") != 1 || !strings.HasPrefix(got.stderr, "indexer: cannot index ") ||
			!strings.Contains(got.stderr, filepath.Base(dir)) || !strings.Contains(got.stderr, want) || !strings.Contains(got.stderr, "-dir") {
			t.Errorf("%q: stderr is not one clear sentence: %q", args, got.stderr)
		}
		wantEmpty(t, temp)
		if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %s was left behind (%v)", args, out, err)
		}
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s was left behind in %s", e.Name(), dir)
	}
}

// TestBadOutputs: what cannot be opened leaves nothing behind either.
func TestBadOutputs(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "in/a.txt", "text")
	in := filepath.Join(dir, "in")
	for name, out := range map[string]string{
		"a file":    filepath.Join(in, "a.txt"),
		"no parent": filepath.Join(dir, "missing", "out"),
	} {
		t.Run(name, func(t *testing.T) {
			got := runProgram(t, nil, "-dir", in, "-out", out)
			if got.code != 1 || got.stdout != "" || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("exit code %d, stdout %q, stderr %q; want 1 and one sentence", got.code, got.stdout, got.stderr)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("%v was left behind in %s (%v)", entries, dir, err)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-h"}, 0, "-leak"},
		{[]string{"-nonsense"}, 2, "-nonsense"},
		{[]string{"folder"}, 2, `"folder"`},
		{[]string{"-query", "1 + 2"}, 2, `"1 + 2"`},
	} {
		got := runProgram(t, nil, c.args...)
		if got.code != c.code || got.stdout != "" || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d and %s", c.args, got.code, got.stdout, got.stderr, c.code, c.want)
		}
	}
}

// TestCancel ends the program as Ctrl-C does, at each line of its progress.
func TestCancel(t *testing.T) {
	dir := writeCorpus(t)
	for _, phase := range []string{"scan: ", "index: "} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var stdout bytes.Buffer
		stderr := &canceller{text: phase, cancel: cancel}
		code := command(ctx, []string{"-dir", dir, "-leak", "-out", t.TempDir()}, &stdout, stderr)
		if code != 130 || stdout.Len() > 0 || !strings.Contains(stderr.String(), "interrupted: live at the end: 0 bytes\n") {
			t.Errorf("cancelled at %q: code %d, stdout %q, stderr %q", phase, code, stdout.String(), stderr.String())
		}
	}
}

// A canceller is a writer that calls cancel when it is given text.
type canceller struct {
	bytes.Buffer
	text   string
	cancel func()
}

func (c *canceller) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(c.text)) {
		c.cancel()
	}
	return c.Buffer.Write(b)
}
