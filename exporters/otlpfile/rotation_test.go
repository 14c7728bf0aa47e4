package otlpfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// rotate returns an Exporter of files in a new folder.
func rotate(t *testing.T, r Rotation) (*Exporter, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace.json")
	return rotateAt(t, path, r), path
}

func rotateAt(t *testing.T, path string, r Rotation) *Exporter {
	t.Helper()
	e, err := CreateRotating(path, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// exportNamed exports one span.
func exportNamed(e *Exporter, t *testing.T, name string) error {
	return e.ExportSpans(t.Context(), tracetest.SpanStubs{{Name: name}}.Snapshots())
}

func filesAt(t *testing.T, path string) []string {
	t.Helper()
	files, err := Files(path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(files) {
		t.Errorf("not in their order: %v", files)
	}
	return files
}

var spanName = regexp.MustCompile(`"name":"([^"]*)"`)

// names returns the names of the spans of each file, all of whose lines must be whole.
func names(t *testing.T, files []string) (list [][]string, bytes int64) {
	t.Helper()
	for _, f := range files {
		data := readFile(t, f)
		countSpans(t, data)
		var in []string
		for _, m := range spanName.FindAllSubmatch(data, -1) {
			in = append(in, string(m[1]))
		}
		list = append(list, in)
		bytes += int64(len(data))
	}
	return list, bytes
}

func wantNames(t *testing.T, path string, want ...[]string) {
	t.Helper()
	if got, _ := names(t, filesAt(t, path)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the files have the spans %v, want %v", got, want)
	}
}

// lineSize is the size of a line with one span whose name has n bytes.
func lineSize(t *testing.T, n int) int64 {
	t.Helper()
	b, err := appendLines(nil, tracetest.SpanStubs{{Name: strings.Repeat("x", n)}}.Snapshots())
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(b))
}

func TestRotationBySize(t *testing.T) {
	e, path := rotate(t, Rotation{MaxFileBytes: 3 * lineSize(t, 1)})
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		if err := exportNamed(e, t, name); err != nil {
			t.Fatal(err)
		}
	}
	wantNames(t, path, []string{"a", "b", "c"}, []string{"d", "e", "f"}, []string{"g"})
	export(t, e, 10) // stay together, in a larger file
	if err := exportNamed(e, t, "h"); err != nil {
		t.Fatal(err)
	}
	got, _ := names(t, filesAt(t, path))
	if len(got) != 5 || len(got[3]) != 10 || len(got[4]) != 1 {
		t.Errorf("the files have the spans %v", got)
	}
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if s, want := e.Stats(), (Stats{Spans: 18, Files: 5}); s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a file at the path itself: %v", err)
	}
}

func TestRotationByAge(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "trace.json")
		e := rotateAt(t, path, Rotation{MaxFileAge: time.Hour})
		time.Sleep(10 * time.Hour) // an empty file does not age
		for _, x := range []struct {
			name string
			wait time.Duration
		}{{"a", time.Hour - 1}, {"b", 1}, {"c", time.Hour - 1}, {"d", 5 * time.Hour}, {"e", 0}, {"f", 0}} {
			if err := exportNamed(e, t, x.name); err != nil {
				t.Fatal(err)
			}
			time.Sleep(x.wait)
		}
		if err := e.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		wantNames(t, path, []string{"a", "b"}, []string{"c", "d"}, []string{"e", "f"})
		// The clock of a bubble begins with the year 2000.
		if got, want := filepath.Base(filesAt(t, path)[1]), "trace-20000101T110000.000000000Z.json"; got != want {
			t.Errorf("the second file is %s, want %s", got, want)
		}
	})
}

// TestRotationBoundsAllFiles: the bound holds after each write, the oldest go first, they are counted, and others' files stay.
func TestRotationBoundsAllFiles(t *testing.T) {
	line := lineSize(t, 6)
	dir := t.TempDir()
	path := filepath.Join(dir, "trace.json")
	others := []string{"trace.json", "trace-2026.json", "trace-19990131T235959.000000000Z.json.gz", "trace-19990131T235959Z.json",
		"trace-19991331T235959.000000000Z.json", "xtrace-19990131T235959.000000000Z.json", "trace-19990131T235959.000000000Z", "trace-.json"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 10000), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	folder := filepath.Join(dir, "trace-19990131T235959.000000000Z.json")
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	earlier := filepath.Join(dir, "trace-20010131T235959.000000000Z.json")
	if err := os.WriteFile(earlier, []byte(`{"resourceSpans":[]}`+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}

	r := Rotation{MaxFileBytes: 2 * line, MaxTotalBytes: 5*line + 1}
	const n = 101
	e := rotateAt(t, path, r)
	for i := range n {
		if err := exportNamed(e, t, fmt.Sprintf("s%05d", i)); err != nil {
			t.Fatal(err)
		}
		got, size := names(t, filesAt(t, path))
		if size > r.MaxTotalBytes {
			t.Fatalf("%d bytes after %d spans, want %d at most", size, i+1, r.MaxTotalBytes)
		}
		all := slices.Concat(got...)
		for j, name := range all {
			if want := fmt.Sprintf("s%05d", i+1-len(all)+j); name != want {
				t.Fatalf("after %d spans the files have %v, want the newest", i+1, got)
			}
		}
		if want := min(i+1, 4); len(all) < want {
			t.Fatalf("after %d spans the files have %v, want %d spans at least", i+1, got, want)
		}
	}
	left := filesAt(t, path)
	_, size := names(t, left)
	want := Stats{Spans: n, Files: 51, DeletedFiles: int64(51 + 1 - len(left)), DeletedBytes: 21 + n*line - size}
	if s := e.Stats(); s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
	for _, name := range append(others, filepath.Base(folder)) {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("a file that is not ours: %v", err)
		}
	}
	export(t, e, 4)
	if err := e.ExportSpans(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if err := e.ExportSpans(t.Context(), spans(200)); err == nil || !strings.Contains(err.Error(), fmt.Sprint("MaxTotalBytes=", r.MaxTotalBytes)) {
		t.Errorf("spans of more than all files may have: %v", err)
	}
	if s := e.Stats(); s.Lost != 200 || s.Spans != n+4 {
		t.Errorf("%+v, want 200 lost", s)
	}
}

// TestRotationAfterACrash: earlier files stay and end in whole lines, and the new file is the newest even if the clock was set back.
func TestRotationAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	whole, err := appendLines(nil, tracetest.SpanStubs{{Name: "a"}, {Name: "b"}}.Snapshots())
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("x"), 200_000)
	for i, data := range [][]byte{whole, slices.Concat(whole, whole[:len(whole)-1]), slices.Concat(whole, long), long, nil} {
		if err := os.WriteFile(nameOf(path, time.Date(2998, 1, 1+i, 0, 0, 0, 0, time.UTC)), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	e := rotateAt(t, path, Rotation{})
	if err := exportNamed(e, t, "c"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, path, []string{"a", "b"}, []string{"a", "b"}, []string{"a", "b"}, nil, nil, []string{"c"})
	if got, want := filesAt(t, path)[5], nameOf(path, time.Date(2998, 1, 5, 0, 0, 0, 1, time.UTC)); got != want {
		t.Errorf("the new file is %s, want %s", got, want)
	}
}

// TestRotationOfTwo: two Exporters of one path write files of their own, and neither deletes the other's.
func TestRotationOfTwo(t *testing.T) {
	r := Rotation{MaxFileBytes: 2 * lineSize(t, 1), MaxTotalBytes: 5 * lineSize(t, 1)}
	idle, path := rotate(t, r)
	if err := exportNamed(idle, t, "i"); err != nil {
		t.Fatal(err)
	}
	busy := rotateAt(t, path, r)
	for range 50 {
		if err := exportNamed(busy, t, "b"); err != nil {
			t.Fatal(err)
		}
	}
	if err := exportNamed(idle, t, "j"); err != nil { // the other's last line is not deleted
		t.Fatal(err)
	}
	got, size := names(t, filesAt(t, path))
	if fmt.Sprint(got[0]) != "[i j]" || fmt.Sprint(got[len(got)-1]) != "[b b]" || size > r.MaxTotalBytes+lineSize(t, 1) {
		t.Errorf("the files have the spans %v", got)
	}
	for _, e := range []*Exporter{idle, busy} {
		if err := e.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	third := rotateAt(t, path, r) // nobody has the old files any more
	for range 3 {
		if err := exportNamed(third, t, "t"); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := names(t, filesAt(t, path)); fmt.Sprint(got) != "[[b b] [t t] [t]]" {
		t.Errorf("the files have the spans %v", got)
	}
}

// TestRotationConcurrency: several Exporters of one path, and several goroutines of each.
func TestRotationConcurrency(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	var wg sync.WaitGroup
	for i := range 3 {
		e := rotateAt(t, path, Rotation{MaxFileBytes: 2000})
		for range 3 {
			wg.Go(func() {
				for range 50 {
					if err := exportNamed(e, t, fmt.Sprint(i)); err != nil {
						t.Error(err)
					}
					e.Stats()
				}
			})
		}
	}
	wg.Wait()
	count := make(map[string]int)
	got, _ := names(t, filesAt(t, path))
	for _, in := range got {
		for _, name := range in {
			count[name]++
			if name != in[0] {
				t.Errorf("two Exporters wrote one file: %v", in)
			}
		}
	}
	if fmt.Sprint(count) != "map[0:150 1:150 2:150]" {
		t.Errorf("the files have the spans %v", count)
	}
}

// TestRotationOnAFullDisk: what is not written is counted, and a later line begins on a line of its own.
func TestRotationOnAFullDisk(t *testing.T) {
	e, path := rotate(t, Rotation{MaxFileBytes: 10 * lineSize(t, 1)})
	r := e.out.(*rotatingFile)
	room, truncateErr, beginErr := 1<<20, error(nil), error(nil)
	var disk *faultyFile
	r.begin = func(name string) (output, error) {
		if beginErr != nil {
			return nil, beginErr
		}
		f, err := begin(name)
		if err != nil {
			return nil, err
		}
		disk = &faultyFile{appendFile: f.(appendFile), room: room, truncateErr: truncateErr}
		return disk, nil
	}
	if err := r.next(); err != nil { // the first file, empty, stays
		t.Fatal(err)
	}
	write := func(name string, want error) {
		t.Helper()
		if err := exportNamed(e, t, name); !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", name, err, want)
		}
	}
	write("a", nil)
	disk.room = 20
	write("b", errFull) // its half is taken back
	disk.room = 1 << 20
	write("c", nil)
	disk.room, disk.truncateErr = 20, errors.New("read-only now")
	write("d", errFull) // its half stays
	if got, _ := os.ReadFile(r.name); bytes.HasSuffix(got, []byte("\n")) {
		t.Fatal("no half line was left")
	}
	beginErr = errFull
	write("e", errFull) // no new file
	beginErr = nil
	write("f", nil) // in a new file
	disk.room, beginErr = 1<<20, nil
	write("g", nil)
	if s, want := e.Stats(), (Stats{Spans: 4, Lost: 3, Files: 3}); s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
	if err := e.Shutdown(t.Context()); !errors.Is(err, errFull) || !strings.Contains(err.Error(), ": 3 (") {
		t.Errorf("Shutdown returned %v, want 3 spans", err)
	}
	rotateAt(t, path, Rotation{}) // removes the half line
	wantNames(t, path, nil, []string{"a", "c"}, []string{"f", "g"}, nil)
}

// TestRotationAfterARename: what is written after another program has taken the file away is in a new one.
func TestRotationAfterARename(t *testing.T) {
	e, path := rotate(t, Rotation{})
	if err := exportNamed(e, t, "a"); err != nil {
		t.Fatal(err)
	}
	for i, take := range []func(name string) error{func(name string) error { return os.Rename(name, path) }, os.Remove} {
		if err := take(filesAt(t, path)[0]); err != nil {
			t.Skip("this system lets nobody take an open file away: ", err)
		}
		if err := exportNamed(e, t, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		wantNames(t, path, []string{fmt.Sprint(i)})
	}
	if got, _ := names(t, []string{path}); fmt.Sprint(got) != "[[a]]" {
		t.Errorf("the renamed file has the spans %v", got)
	}
}

// TestRotationOfNoSpans leaves no file.
func TestRotationOfNoSpans(t *testing.T) {
	e, path := rotate(t, Rotation{MaxFileAge: 1})
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	wantNames(t, path)
}

func TestCreateRotatingErrors(t *testing.T) {
	dir := t.TempDir()
	for _, x := range []struct {
		path string
		r    Rotation
		want string
	}{
		{"", Rotation{}, "such as"},
		{filepath.Join(dir, "missing", "trace.json"), Rotation{}, "a folder that exists"},
		{filepath.Join(dir, "trace.json"), Rotation{MaxFileBytes: -1}, "above zero"},
		{filepath.Join(dir, "trace.json"), Rotation{MaxFileAge: -1}, "above zero"},
		{filepath.Join(dir, "trace.json"), Rotation{MaxTotalBytes: -1}, "above zero"},
		{filepath.Join(dir, "trace.json"), Rotation{MaxTotalBytes: 1000}, "from 1 to 500"},
		{filepath.Join(dir, "trace.json"), Rotation{MaxTotalBytes: 1000, MaxFileBytes: 501}, "from 1 to 500"},
	} {
		e, err := CreateRotating(x.path, x.r)
		if err == nil {
			e.Close()
			t.Errorf("CreateRotating took %q with %+v", x.path, x.r)
			continue
		}
		inner := errors.Unwrap(err)
		if inner == nil || fmt.Sprintf("otlpfile: CreateRotating(%q): %v", x.path, inner) != err.Error() || !strings.Contains(inner.Error(), x.want) {
			t.Errorf("CreateRotating(%q, %+v) returned %q, want the path once and %q", x.path, x.r, err, x.want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v left behind (%v)", entries, err)
	}
	if _, err := Files(filepath.Join(dir, "missing", "trace.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files of a folder that is not there: %v", err)
	}
}
