package jaegertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	module   = "github.com/jaegertracing/jaeger@" + Version
	attempts = 3 // for the network's sake
)

// Build returns the path of the binary in the cache, after building it there
// if it is missing. It needs the go command and, the first time, the network.
// Any number of processes may call it at once: one builds and the others
// wait. progress, which may be nil, gets a line for each step.
func Build(ctx context.Context, progress io.Writer) (string, error) {
	if progress == nil {
		progress = io.Discard
	}
	path, err := cachePath()
	if err != nil || isFile(path) {
		return path, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return "", fmt.Errorf("jaegertest.Build: cache folder: %w", err)
	}
	unlock, err := lock(ctx, path+".lock", progress)
	if err != nil {
		return "", fmt.Errorf("jaegertest.Build: waiting for another build: %w", err)
	}
	defer unlock()
	if isFile(path) {
		return path, nil
	}

	// go install refuses the module, for its go.mod replaces others, and a
	// go.sum of ours could not list its sums. In a writable copy of its own
	// folder of the module cache, both are as its authors left them.
	tmp, err := os.MkdirTemp("", "jaeger-build-")
	if err != nil {
		return "", fmt.Errorf("jaegertest.Build: %w", err)
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(progress, "jaegertest: building %s into %s, which takes minutes the first time\n", module, path)
	src, out := filepath.Join(tmp, "src"), filepath.Join(tmp, binaryName())
	err = retry(ctx, progress, func() error {
		if err := os.RemoveAll(src); err != nil {
			return err
		}
		dir, err := download(ctx, tmp)
		if err != nil {
			return err
		}
		if err := os.CopyFS(src, os.DirFS(dir)); err != nil {
			return err
		}
		_, err = goCommand(ctx, src, "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", out, "./cmd/jaeger")
		return err
	})
	if err != nil {
		return "", fmt.Errorf("jaegertest.Build: %w", err)
	}
	if err := install(out, path); err != nil {
		return "", fmt.Errorf("jaegertest.Build: %w", err)
	}
	return path, nil
}

func retry(ctx context.Context, progress io.Writer, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if err == nil || n == attempts || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		fmt.Fprintf(progress, "jaegertest: attempt %d of %d: %v\n", n, attempts, err)
	}
}

// download returns the module's folder in the module cache.
func download(ctx context.Context, dir string) (string, error) {
	out, err := goCommand(ctx, dir, "mod", "download", "-json", module)
	var m struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &m); jsonErr == nil && m.Error != "" {
		return "", errors.New(m.Error)
	}
	if err != nil {
		return "", err
	}
	if m.Dir == "" {
		return "", fmt.Errorf("go mod download says nothing of a folder: %s", out)
	}
	return m.Dir, nil
}

// goCommand runs the go command for this program's platform and outside of
// any workspace.
func goCommand(ctx context.Context, dir string, args ...string) (stdout []byte, err error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir, "GOWORK=off", "GOFLAGS=-mod=mod", "CGO_ENABLED=0",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err = cmd.Output()
	if err != nil {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, tail(stderr.String(), 20))
	}
	return stdout, err
}

// install copies from beside to and renames, so that to is never half there.
func install(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) // fails, as it should, once renamed
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
