package jaegertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/internal/process"
)

// fakeGo is set in the environment of a copy of this test program that plays
// the go command, so that Build can be tested without the network. Its value
// is a folder: in it, the file calls lists the calls, and as many downloads
// fail as the file failures has bytes.
const fakeGo = "JAEGERTEST_FAKE_GO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(fakeGo); dir != "" {
		if err := playGo(dir, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func playGo(dir string, args []string) error {
	calls, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer calls.Close()
	if _, err := fmt.Fprintf(calls, "GOWORK=%s GOFLAGS=%s CGO_ENABLED=%s %s\n", os.Getenv("GOWORK"), os.Getenv("GOFLAGS"),
		os.Getenv("CGO_ENABLED"), strings.Join(args, " ")); err != nil {
		return err
	}
	if args[0] == "build" {
		if _, err := os.Stat("go.mod"); err != nil {
			return err // not in the copy of the module
		}
		if f, err := os.OpenFile("go.mod", os.O_APPEND|os.O_WRONLY, 0); err != nil {
			return err // the copy must be writable
		} else if err := f.Close(); err != nil {
			return err
		}
		for i, a := range args {
			if a == "-o" {
				return os.WriteFile(args[i+1], []byte("a jaeger"), 0o777)
			}
		}
		return errors.New("no -o")
	}
	failures := filepath.Join(dir, "failures")
	left, err := os.ReadFile(failures)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		if err := os.WriteFile(failures, left[1:], 0o666); err != nil {
			return err
		}
		fmt.Printf(`{"Path":"x","Error":"the network is down"}`)
		return errors.New("exit status 1")
	}
	fmt.Printf(`{"Path":"x","Dir":%q}`, filepath.Join(dir, "modcache"))
	return nil
}

// setUpFakeGo puts the fake first on the PATH and an empty cache in place.
func setUpFakeGo(t *testing.T, failures int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !process.CanStart(t) {
		t.Skip("the fake go command would be a process")
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	name := "go"
	if runtime.GOOS == "windows" {
		name = "go.exe"
	}
	modcache := filepath.Join(dir, "modcache")
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, name), program, 0o777),
		os.WriteFile(filepath.Join(dir, "failures"), bytes.Repeat([]byte("x"), failures), 0o666),
		os.Mkdir(modcache, 0o777),
		os.WriteFile(filepath.Join(modcache, "go.mod"), []byte("module x\n"), 0o444), // read-only, as in the cache
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	t.Setenv(fakeGo, dir)
	t.Setenv("ALLOCTRACE_JAEGER", "")
	t.Setenv("ALLOCTRACE_CACHE", filepath.Join(dir, "cache"))
	return dir
}

func readCalls(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// wantNoLeftovers checks that the cache folder holds the binary and nothing
// else: no lock and no half-written file.
func wantNoLeftovers(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != binaryName() {
		t.Errorf("the cache folder holds %v (%v), want %s alone", entries, err, binaryName())
	}
}

func TestBuildTriesAgain(t *testing.T) {
	dir := setUpFakeGo(t, 2)
	var progress bytes.Buffer
	path, err := Build(t.Context(), &progress)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := cachePath(); path != want || !strings.HasPrefix(path, filepath.Join(dir, "cache", "jaeger-"+Version)) {
		t.Errorf("the path is %s, want %s", path, want)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "a jaeger" {
		t.Errorf("the cache holds %q (%v)", b, err)
	}
	if fi, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm()&0o111 == 0 {
		t.Errorf("the binary cannot be run: %v, %v", fi.Mode(), err)
	}
	wantNoLeftovers(t, path)
	if n := strings.Count(progress.String(), "the network is down"); n != 2 {
		t.Errorf("progress reports %d failures, want 2:\n%s", n, progress.String())
	}
	calls := readCalls(t, dir)
	if len(calls) != 4 || !strings.Contains(calls[3], "GOWORK=off GOFLAGS=-mod=mod CGO_ENABLED=0 build ") || !strings.HasSuffix(calls[3], "./cmd/jaeger") ||
		!strings.Contains(calls[0], "GOWORK=off GOFLAGS=-mod=mod CGO_ENABLED=0 mod download -json "+module) {
		t.Errorf("the calls were\n%s", strings.Join(calls, "\n"))
	}
	if again, err := Binary(t.Context(), nil); err != nil || again != path || len(readCalls(t, dir)) != 4 {
		t.Errorf("a second Binary gave %s, %v and called go again", again, err)
	}
}

func TestBuildGivesUp(t *testing.T) {
	dir := setUpFakeGo(t, 3)
	_, err := Build(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "the network is down") {
		t.Errorf("Build returned %v, want the reason", err)
	}
	if n := len(readCalls(t, dir)); n != attempts {
		t.Errorf("%d calls, want %d", n, attempts)
	}
	path, _ := cachePath()
	if isFile(path) {
		t.Error("a failed build left a binary")
	}
	if _, err := os.Stat(path + ".lock"); err == nil {
		t.Error("a failed build left its lock")
	}
}

func TestBuildOnceForAll(t *testing.T) {
	dir := setUpFakeGo(t, 0)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			path, err := Build(t.Context(), nil)
			if err != nil || !isFile(path) {
				t.Errorf("Build returned %q, %v", path, err)
			}
		})
	}
	wg.Wait()
	if calls := readCalls(t, dir); len(calls) != 2 {
		t.Errorf("the builds were not one: %q", calls)
	}
	path, _ := cachePath()
	wantNoLeftovers(t, path)
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	var progress bytes.Buffer
	if _, err := lock(ctx, dir, &progress); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a held lock gave %v, want the deadline", err)
	}
	if n := strings.Count(progress.String(), "another process"); n != 1 {
		t.Errorf("the waiting was reported %d times, want once", n)
	}
	unlock()
	if unlock, err = lock(t.Context(), dir, io.Discard); err != nil {
		t.Fatal(err)
	}
	unlock()

	// One left behind by a process that is gone.
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * lockStale)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
	if unlock, err = lock(t.Context(), dir, io.Discard); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dir); err != nil || time.Since(fi.ModTime()) > lockStale {
		t.Errorf("the lock taken over is %v old (%v)", time.Since(fi.ModTime()), err)
	}
	unlock()
}

func TestFind(t *testing.T) {
	dir := setUpFakeGo(t, 0)
	if _, err := find(); !errors.Is(err, errNoBinary) || !strings.Contains(err.Error(), "make integration") {
		t.Errorf("with nothing there, find returned %v", err)
	}
	cached, err := cachePath()
	if err != nil {
		t.Fatal(err)
	}
	onPath, named := filepath.Join(dir, binaryName()), filepath.Join(dir, "named")
	// Each of these comes before the last.
	for _, x := range []struct{ path, env string }{{cached, ""}, {onPath, ""}, {named, named}} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(x.path), 0o777), os.WriteFile(x.path, nil, 0o777)); err != nil {
			t.Fatal(err)
		}
		t.Setenv("ALLOCTRACE_JAEGER", x.env)
		if got, err := find(); err != nil || got != x.path {
			t.Errorf("find returned %s, %v, want %s", got, err, x.path)
		}
	}
	t.Setenv("ALLOCTRACE_JAEGER", filepath.Join(dir, "missing"))
	if _, err := find(); err == nil || !strings.Contains(err.Error(), "ALLOCTRACE_JAEGER=") || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing file gave %v", err)
	}
}

// TestFindWithoutCache: a user without a cache folder has no Jaeger, which a test skips for.
func TestFindWithoutCache(t *testing.T) {
	setUpFakeGo(t, 0)
	for _, name := range []string{"ALLOCTRACE_CACHE", "XDG_CACHE_HOME", "HOME", "LocalAppData"} {
		t.Setenv(name, "")
	}
	if _, err := find(); !errors.Is(err, errNoBinary) || !strings.Contains(err.Error(), "ALLOCTRACE_CACHE") {
		t.Errorf("find returned %v, want that there is none, and why", err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("JAEGERTEST_OTHER", "kept")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x")
	var got []string
	for _, kv := range environment() {
		if strings.HasPrefix(kv, "JAEGERTEST_OTHER=") || strings.HasPrefix(kv, "OTEL_") {
			got = append(got, kv)
		}
	}
	if strings.Join(got, " ") != "JAEGERTEST_OTHER=kept OTEL_TRACES_SAMPLER=always_off" {
		t.Errorf("Jaeger's environment is %q", got)
	}
}

// A program that is no Jaeger must fail with its own words, not hang.
func TestStartOfSomethingElse(t *testing.T) {
	if !process.CanStart(t) {
		return
	}
	path, err := exec.LookPath("false")
	if err != nil {
		path = os.Args[0] // fails for the unknown flag --config
	}
	if _, err := start(t, path, true, []string{"{}"}); err == nil || !strings.Contains(err.Error(), "before it was ready") {
		t.Errorf("start returned %v", err)
	}
}
