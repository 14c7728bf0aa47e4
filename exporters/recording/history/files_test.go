package history

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// record returns the path of a recording of what a program does, in which time passes only while it sleeps.
func record(t *testing.T, program func(t *testing.T, rec *recording.Recorder, mem *alloctrace.Proxy)) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.alloctrace")
	synctest.Test(t, func(t *testing.T) {
		rec, err := recording.Create(path, recording.Options{FlushEvery: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		program(t, rec, alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"), alloctrace.WithHooks(rec)))
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return path
}

func open(t *testing.T, path string, alone bool) *Recording {
	t.Helper()
	r, err := Open(path, alone)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func allocate(t *testing.T, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func free(t *testing.T, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := a.Free(b); err != nil {
		t.Fatal(err)
	}
}

// hold and churn are the sites of grow.
func hold(t *testing.T, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	return allocate(t, a, size)
}
func churn(t *testing.T, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 512) }

// grow holds a KiB of the child more each second, a hundred times, and has a block of 512 bytes for a half of it.
func grow(t *testing.T, _ *recording.Recorder, mem *alloctrace.Proxy) {
	for range 100 {
		hold(t, mem.Child("cache"), 1024)
		b := churn(t, mem)
		time.Sleep(time.Second / 2)
		free(t, mem, b)
		time.Sleep(time.Second / 2)
	}
}

func inFunction(s []recording.Frame, name string) bool {
	return len(s) > 1 && strings.HasSuffix(s[1].Function, "/history."+name)
}

// cutFile makes a file of the first bytes of another.
func cutFile(t *testing.T, path string, n int) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n < 0 {
		n += len(b)
	}
	to := filepath.Join(t.TempDir(), "cut.alloctrace")
	if err := os.WriteFile(to, b[:n], 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestLeaks: what is live at the end has its site, its age and its growth.
func TestLeaks(t *testing.T) {
	l := FindLeaks(open(t, record(t, grow), false), Options{})
	if len(l.Sites) != 1 || l.Live != (Amount{100, 100 << 10}) || l.Moments != [4]time.Duration{24875e6, 49750e6, 74625e6, 99500e6} {
		t.Fatalf("%+v", l)
	}
	k := l.Sites[0]
	if !inFunction(k.Stack, "hold") || k.Child != "cache" || k.Oldest != 0 || k.Newest != 99*time.Second || k.Quarters != [4]int64{25 << 10, 50 << 10, 75 << 10, 100 << 10} ||
		!k.Grows || k.Freed.Blocks != 0 || k.Outlived != 0 {
		t.Errorf("%+v of %+v", k, k.Site)
	}
	l = FindLeaks(open(t, record(t, func(t *testing.T, _ *recording.Recorder, mem *alloctrace.Proxy) {
		var held []blockalloc.Block
		for i := range 10 { // a cache that is full from the second second on, and loses its first block never
			held = append(held, hold(t, mem, 1024))
			time.Sleep(time.Second)
			if i > 1 {
				free(t, mem, held[1])
				held = slices.Delete(held, 1, 2)
			}
		}
	}), false), Options{})
	k = l.Sites[0]
	if k.Live.Blocks != 2 || k.Freed.Blocks != 8 || k.Longest != 2*time.Second || k.Grows || k.Outlived != 1 || k.Oldest != 0 || k.Newest != 9*time.Second {
		t.Errorf("%+v of %+v", k, k.Site)
	}
}

// TestTimeline: each step has the most that was live in it, by any grouping.
func TestTimeline(t *testing.T) {
	r := open(t, record(t, grow), false)
	for by, want := range map[string]string{
		"":       "",
		"proxy":  "mem/// 102912 [10752 20992]",
		"child":  "mem/cache// 102400 [10240 20480], mem/// 512 [512 512]",
		"region": "/// 102912 [10752 20992]",
		"site":   "///hold 102400 [10240 20480], ///churn 512 [512 512]",
	} {
		line, err := NewTimeline(r, by, 10, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for i, g := range line.Groups {
			if i > 0 {
				got += ", "
			}
			site := ""
			if g.Site != nil {
				site = g.Site.Stack[1].Function[strings.LastIndexByte(g.Site.Stack[1].Function, '.')+1:]
			}
			got += fmt.Sprintf("%s/%s/%s/%s %d %d", g.Proxy, g.Child, g.Region, site, g.Peak, g.Values[:2])
		}
		if got != want || len(line.Total.Values) != 10 || line.Total.Values[9] != 102912 || line.Total.Live != 102400 || line.Step != 9950*time.Millisecond+1 {
			t.Errorf("by %q: %s, want %s; %+v", by, got, want, line)
		}
	}
	for _, by := range []string{"x", ""} {
		if _, err := NewTimeline(r, by, 0, Options{}); err == nil || !strings.Contains(err.Error(), "use proxy, child, region, site") {
			t.Errorf("by %q in no step: %v", by, err)
		}
	}
}

// TestCompare: between two moments, and between two recordings, each site has its change.
func TestCompare(t *testing.T) {
	path := record(t, grow)
	r := open(t, path, false)
	c := Between(r, 10*time.Second, 19500*time.Millisecond, Options{})
	if len(c.Sites) != 2 || c.Before != (Amount{12, 11<<10 + 512}) || c.After != (Amount{20, 20 << 10}) || c.Sites[0].Change != (Amount{9, 9 << 10}) || c.Sites[1].Change != (Amount{-1, -512}) ||
		!inFunction(c.Sites[0].Stack, "hold") || !inFunction(c.Sites[1].Stack, "churn") {
		t.Errorf("%+v", c)
	}
	back := Between(r, 19500*time.Millisecond, 10*time.Second, Options{})
	if back.Before != c.After || back.After != c.Before || back.Sites[0].Change != (Amount{-9, -9 << 10}) {
		t.Errorf("backwards: %+v", back)
	}
	if c = Between(r, 0, End, Options{}); c.After != (Amount{100, 100 << 10}) || c.Before != (Amount{2, 1536}) {
		t.Errorf("%+v", c)
	}
	other := open(t, record(t, func(t *testing.T, _ *recording.Recorder, mem *alloctrace.Proxy) {
		hold(t, mem.Child("cache"), 1024)
		time.Sleep(30 * time.Second)
		hold(t, mem.Child("new"), 1024)
	}), false)
	c = Compare(r, other, End, Options{})
	if len(c.Sites) != 3 || c.Sites[0].Before.Blocks != 100 || c.Sites[0].After.Blocks != 0 || c.Sites[1].Change != (Amount{1, 1024}) || c.Sites[2].Change != (Amount{1, 1024}) {
		t.Errorf("%+v", c) // the functions that call hold differ
	}
	if c = Compare(r, r, 20*time.Second, Options{}); len(c.Sites) != 0 || c.Before != c.After || c.Before != (Amount{22, 21<<10 + 512}) || c.First == nil {
		t.Errorf("%+v", c)
	}
	if c = Compare(r, other, 20*time.Second, Options{}); c.After != (Amount{1, 1024}) {
		t.Errorf("%+v", c)
	}
}

// TestFunctions: two sites of two recordings are one if their functions are the same, though lines differ.
func TestFunctions(t *testing.T) {
	site := func(function string, line int, bytes int64) Change {
		return Change{Stack: []recording.Frame{{Function: function, File: "f.go", Line: line}}, After: Amount{1, bytes}}
	}
	before, after := []Change{site("f", 1, 10), site("f", 2, 20), site("g", 1, 7)}, []Change{site("f", 3, 100), site("g", 1, 7)}
	list := compare(before, after, false)
	if len(list) != 1 || list[0].Change != (Amount{-1, 70}) || list[0].Stack[0].Line != 3 {
		t.Errorf("%+v", list)
	}
	if list = compare(before, after, true); len(list) != 3 || list[0].Change != (Amount{1, 100}) {
		t.Errorf("with lines %+v", list)
	}
}

// TestFind: blocks are found by any of what is known of them, in any order, and counted though they are too many.
func TestFind(t *testing.T) {
	r := open(t, record(t, grow), false)
	oldest := func(a, b *Block) int { return cmp.Compare(a.Acquired, b.Acquired) }
	for name, test := range map[string]struct {
		match   func(b *Block) bool
		matched Amount
		live    int64
	}{
		"all":         {func(*Block) bool { return true }, Amount{200, 100 * 1536}, 100},
		"active":      {func(b *Block) bool { return b.LiveAt(10 * time.Second) }, Amount{12, 11<<10 + 512}, 11},
		"short lives": {func(b *Block) bool { return !b.Live && b.Life() <= time.Second/2 }, Amount{100, 100 * 512}, 0},
		"long lives":  {func(b *Block) bool { return b.Life() > 95*time.Second }, Amount{5, 5 << 10}, 5},
	} {
		f := FindBlocks(r, test.match, oldest, 3, Options{})
		if f.Matched != test.matched || f.Live.Blocks != test.live || len(f.Blocks) != 3 || f.Blocks[0].Acquired > f.Blocks[2].Acquired || f.Blocks[2].Acquired > 2*time.Second {
			t.Errorf("%s: %+v", name, f)
		}
		if all := FindBlocks(r, test.match, oldest, -1, Options{}); int64(len(all.Blocks)) != test.matched.Blocks {
			t.Errorf("%s: %d blocks", name, len(all.Blocks))
		}
		if none := FindBlocks(r, test.match, oldest, 0, Options{}); len(none.Blocks) != 0 || none.Matched != test.matched {
			t.Errorf("%s: %+v", name, none)
		}
	}
}

// TestRank: sites come by what is asked for, and what was live at the peak adds up to it.
func TestRank(t *testing.T) {
	r := open(t, record(t, func(t *testing.T, _ *recording.Recorder, mem *alloctrace.Proxy) {
		first := hold(t, mem, 4096)
		for range 20 {
			free(t, mem, churn(t, mem))
		}
		free(t, mem, first)
		allocate(t, mem, 100)
	}), false)
	for by, want := range map[string]string{"live": "100 ", "allocated": "10240 4096 100 ", "peak": "4096 512 "} {
		k, err := Rank(r, by, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, s := range k.Sites {
			got += fmt.Sprintf("%d ", s.By(by).Bytes)
		}
		if got != want || k.Peak != (Amount{2, 4608}) || k.Allocated != (Amount{22, 14436}) || k.Live != (Amount{1, 100}) {
			t.Errorf("by %s: %s, want %s; %+v", by, got, want, k)
		}
	}
	if _, err := Rank(r, "size", Options{}); err == nil {
		t.Error("sites are ranked by size")
	}
}

// TestOld: the file before is read first, if it is of the same process, and is not needed.
func TestOld(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	synctest.Test(t, func(t *testing.T) {
		rec, err := recording.Create(path, recording.Options{MaxBytes: 12 << 20, FlushEvery: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(rec))
		rng := rand.NewChaCha8([32]byte{1})
		first := allocate(t, mem, 1)
		for rotated := false; !rotated; { // names that are random do not compress
			for range 500 {
				var name [700]byte
				_, _ = rng.Read(name[:])
				allocate(t, mem.Child(base64.StdEncoding.EncodeToString(name[:])), 1)
			}
			time.Sleep(time.Second)
			if err := rec.Flush(); err != nil {
				t.Fatal(err)
			}
			_, err := os.Stat(path + ".old")
			rotated = err == nil
		}
		free(t, mem, first)
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
	})
	both := open(t, path, false)
	all := Summarize(both, Options{})
	alone := Summarize(open(t, path, true), Options{})
	if len(all.Files) != 2 || all.First != 0 || all.Unknown.Older.Blocks != 0 || all.Live.Blocks != all.Counts.Allocations-1 || !all.Closed || all.Last != alone.Last {
		t.Errorf("both: %+v", all)
	}
	if len(alone.Files) != 1 || alone.First == 0 || alone.Size >= all.Size || alone.Counts.Events >= all.Counts.Events {
		t.Errorf("one: %+v", alone)
	}
	var read, size int64
	both.Progress = func(n, of int64) { read, size = n, of }
	both.Read(Options{})
	if read != size || size != all.Size {
		t.Errorf("%d of %d bytes were read, want %d", read, size, all.Size)
	}

	old, err := os.ReadFile(path + ".old")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(path+".old", old[:len(old)/2])
	if s := Summarize(open(t, path, false), Options{}); len(s.Unknown.Damage) != 1 || s.Counts.Events <= alone.Counts.Events || s.Counts.Events >= all.Counts.Events || s.Last != all.Last || !s.Closed {
		t.Errorf("half of the old file: %+v", s)
	}
	write(path+".old", []byte("nothing"))
	if s := Summarize(open(t, path, false), Options{}); len(s.Unknown.Damage) != 1 || s.Counts.Events != alone.Counts.Events {
		t.Errorf("an old file that is none: %+v", s)
	}
	os.Remove(path + ".old")
	rec, err := recording.Create(path+".old", recording.Options{}) // at the time of the clock, which is not that of the other
	if err == nil {
		err = rec.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if s := Summarize(open(t, path, false), Options{}); len(s.Files) != 1 || len(s.Unknown.Damage) != 0 {
		t.Errorf("an old file of another process: %+v", s)
	}
	write(path+".old", old)
	write(path, nil)
	if s := Summarize(open(t, path, false), Options{}); len(s.Files) != 1 || len(s.Unknown.Damage) != 1 || s.Counts.Events == 0 {
		t.Errorf("the old file alone: %+v", s)
	}
	if _, err := Open(path, true); err == nil {
		t.Error("an empty file is opened")
	}
	if _, err := Open(filepath.Join(dir, "none"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
