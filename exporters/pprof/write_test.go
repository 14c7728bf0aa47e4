package pprof

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestNil(t *testing.T) {
	for name, call := range map[string]func(){
		"Write":         func() { _ = Write(io.Discard, nil) },
		"WriteFile":     func() { _ = WriteFile(filepath.Join(t.TempDir(), "profile"), nil) },
		"WriteCombined": func() { _ = WriteCombined(io.Discard, nil) },
		"Handler":       func() { Handler(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if r, _ := recover().(string); !strings.HasPrefix(r, "pprof: "+name+": the profile is nil: pass ") {
					t.Errorf("it panics with %q", r)
				}
			}()
			call()
		})
	}
}

func TestWriteFails(t *testing.T) {
	for name, write := range map[string]func(io.Writer, *heapprofile.Profile) error{"Write": Write, "WriteCombined": WriteCombined} {
		if err := write(brokenWriter{}, heapprofile.New(heapprofile.Options{Rate: 1})); err == nil || !strings.HasPrefix(err.Error(), "pprof: "+name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWriteFile: the file has what Write writes, and nothing of what was there; where it cannot be, the error names it.
func TestWriteFile(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(newSlab(t), alloctrace.WithHooks(p))
	plant(t, mem, 1)
	path := filepath.Join(t.TempDir(), "offheap.pprof")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, p); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(parse(t, data).Sample), len(p.Samples()); got != want || want == 0 {
		t.Errorf("%d samples, want %d", got, want)
	}
	missing := filepath.Join(t.TempDir(), "missing", "offheap.pprof")
	if err := WriteFile(missing, p); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("in a folder that is not there: %v", err)
	}
}
