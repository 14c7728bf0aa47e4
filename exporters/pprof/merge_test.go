package pprof

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

// withTypes returns Go's heap profile as it would be with these sample types. The value of a
// type that it does not have today is 7 everywhere.
func withTypes(heap *profile.Profile, types ...*profile.ValueType) *profile.Profile {
	p := heap.Copy()
	for _, s := range p.Sample {
		values := make([]int64, len(types))
		for i, own := range types {
			values[i] = 7
			if at := indexOfType(p.SampleType, own.Type); at >= 0 {
				values[i] = s.Value[at]
			}
		}
		s.Value = values
	}
	p.SampleType, p.DefaultSampleType = types, types[0].Type
	return p
}

// sums returns the sums of p's values by their types, of samples with a value of a label.
func sums(p *profile.Profile, key, value string) map[string]int64 {
	sums := make(map[string]int64)
	for _, s := range p.Sample {
		if s.HasLabel(key, value) {
			for i, v := range s.Value {
				sums[p.SampleType[i].Type] += v
			}
		}
	}
	return sums
}

// kept keeps memory in the Go heap, so that its profile has something.
var kept []byte

// TestSampleTypes: profiles are joined whose sample types differ in number and order, either
// first, and go tool pprof shows what both had.
func TestSampleTypes(t *testing.T) {
	kept = make([]byte, 8<<20)
	var content bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&content, 0); err != nil {
		t.Fatal(err)
	}
	heapToday := parse(t, content.Bytes())
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
	b := buildIndex(t, mem)
	of := func(names string) (types []*profile.ValueType) {
		for name := range strings.FieldsSeq(names) {
			unit := "bytes"
			if strings.HasSuffix(name, "_objects") {
				unit = "count"
			}
			types = append(types, &profile.ValueType{Type: name, Unit: unit})
		}
		return types
	}
	for name, types := range map[string]string{
		"as today":        "alloc_objects alloc_space inuse_objects inuse_space",
		"five":            "alloc_objects alloc_space inuse_objects inuse_space memory_space",
		"five, new first": "memory_space alloc_objects alloc_space inuse_objects inuse_space",
		"other order":     "inuse_space inuse_objects memory_space alloc_space alloc_objects",
		"fewer":           "inuse_objects inuse_space",
		"none in common":  "memory_space",
	} {
		t.Run(name, func(t *testing.T) {
			var kinds []string
			for _, v := range of("alloc_objects alloc_space inuse_objects inuse_space " + types) {
				if !slices.Contains(kinds, v.Type) {
					kinds = append(kinds, v.Type)
				}
			}
			check := func(combined *profile.Profile) {
				t.Helper()
				combined = parse(t, written(t, combined))
				if len(combined.SampleType) != len(kinds) {
					t.Errorf("%d sample types, want %v", len(combined.SampleType), kinds)
				}
				heap, off := withTypes(heapToday, of(types)...), build(p)
				heap.SetLabel("memory", []string{"heap"})
				off.SetLabel("memory", []string{"offheap"})
				for value, want := range map[string]map[string]int64{"heap": sums(heap, "memory", "heap"), "offheap": sums(off, "memory", "offheap")} {
					got := sums(combined, "memory", value)
					for _, kind := range kinds {
						if got[kind] != want[kind] {
							t.Errorf("%s of %s: %d, want %d", kind, value, got[kind], want[kind])
						}
					}
				}
			}
			combined, err := combineWith(withTypes(heapToday, of(types)...), build(p))
			if err != nil {
				t.Fatal(err)
			}
			if combined.DefaultSampleType != "inuse_space" {
				t.Errorf("shows %s unless told otherwise", combined.DefaultSampleType)
			}
			check(combined)
			heap, off := withTypes(heapToday, of(types)...), build(p)
			heap.SetLabel("memory", []string{"heap"})
			off.SetLabel("memory", []string{"offheap"})
			reversed, err := merge(off, heap)
			if err != nil {
				t.Fatal(err)
			}
			check(reversed)

			// The real tool, on the one profile and on the two.
			file := func(p *profile.Profile) string {
				name := filepath.Join(t.TempDir(), "p.pb.gz")
				if err := os.WriteFile(name, written(t, p), 0o600); err != nil {
					t.Fatal(err)
				}
				return name
			}
			one, two := file(combined), []string{file(withTypes(heapToday, of(types)...)), file(build(p))}
			args := [][]string{{one}}
			if name != "none in common" { // which the tool says
				args = append(args, two, []string{two[1], two[0]})
			}
			for _, files := range args {
				top := goTool(t, append([]string{"-top", "-unit=B", "-nodecount=1000", "-nodefraction=0", "-sample_index=inuse_space", "-hide=\\.allocate$"}, files...)...)
				if got := flat(t, top, "buildIndex"); got != 1<<20 {
					t.Errorf("of %d files: buildIndex has %v, want %v", len(files), got, 1<<20)
				}
			}
			if top := goTool(t, "-top", "-tagfocus=memory=offheap", one); !strings.Contains(top, "Type: inuse_space\n") || !strings.Contains(top, "buildIndex") {
				t.Errorf("unless told otherwise:\n%s", top)
			}
			if strings.Contains(types, "memory_space") {
				if top := goTool(t, "-top", "-sample_index=memory_space", one); !strings.Contains(top, "Type: memory_space\n") {
					t.Errorf("by memory_space:\n%s", top)
				}
			}
		})
	}
	for _, c := range []struct{ name, types, unit, want string }{
		{"other unit", "inuse_objects inuse_space", "kilobytes", `sample type "inuse_space" is in kilobytes in one profile and in bytes in the other: write them apart`},
		{"twice", "inuse_space inuse_space", "bytes", `sample type "inuse_space" is twice in a profile: write the two profiles apart`},
	} {
		types := of(c.types)
		types[1].Unit = c.unit
		if _, err := combineWith(withTypes(heapToday, types...), build(p)); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	if err := mem.Free(b); err != nil {
		t.Error(err)
	}
}

func written(t *testing.T, p *profile.Profile) []byte {
	t.Helper()
	var content bytes.Buffer
	if err := p.Write(&content); err != nil {
		t.Fatal(err)
	}
	return content.Bytes()
}

// TestUglyNames: labels and names of children that are no text arrive valid and bounded, and
// every sample with them, in the profile and in the text.
func TestUglyNames(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(p)))
	type expected struct{ key, value string }
	var want []expected
	var live []blockalloc.Block
	var children []*alloctrace.Proxy
	for _, ugly := range texttest.Table() {
		children = append(children, mem.Child(ugly.Text))
		live = append(live,
			cachePages(t, mem.WithContext(pprof.WithLabels(t.Context(), pprof.Labels("value", ugly.Text)))),
			cachePages(t, mem.WithContext(pprof.WithLabels(t.Context(), pprof.Labels(ugly.Text, "of a key")))),
			cachePages(t, children[len(children)-1]))
		want = append(want, expected{"value", text.Name(ugly.Text)}, expected{text.Name(ugly.Text), "of a key"}, expected{"allocator", text.Name(ugly.Text)})
	}
	// Keys that become equal are one key with both values.
	live = append(live, cachePages(t, mem.WithContext(pprof.WithLabels(t.Context(), pprof.Labels("same\xfe", "b", "same\xff", "a")))))
	want = append(want, expected{"same\ufffd", "a"}, expected{"same\ufffd", "b"})

	// The text is read as one of four sample types only if something was freed.
	if err := mem.Free(cachePages(t, mem)); err != nil {
		t.Fatal(err)
	}
	url := serve(t, p)
	for _, query := range []string{"", "?combined=1"} {
		content := get(t, url+query)
		for _, read := range []*profile.Profile{parse(t, content), viaTool(t, content)} {
			valid(t, read)
			for _, w := range want {
				if w.value != "" && !slices.ContainsFunc(read.Sample, func(s *profile.Sample) bool { return s.HasLabel(w.key, w.value) }) {
					t.Errorf("no sample has the label %.40q: %.40q", w.key, w.value)
				}
			}
			if got := of(read, "cachePages"); got[2] != float64(len(live)) {
				t.Errorf("%v blocks of cachePages, want %d", got[2], len(live))
			}
		}
		raw := goTool(t, "-raw", "-symbolize=none", writeFile(t, content))
		if !utf8.ValidString(raw) || !strings.Contains(raw, "cachePages") {
			t.Error("-raw is no text")
		}
	}
	lines := string(get(t, url+"?debug=1"))
	if !utf8.ValidString(lines) {
		t.Error("the text is no UTF-8")
	}
	for line := range strings.Lines(lines) {
		if strings.ContainsFunc(line[:len(line)-1], func(r rune) bool { return r < ' ' && r != '\t' }) || len(line) > 40<<10 { // the tool takes 64 KiB
			t.Errorf("a line of %d bytes: %.60q", len(line), line)
		}
	}
	for _, read := range []*profile.Profile{parse(t, []byte(lines)), viaTool(t, []byte(lines))} {
		var blocks, inUse int64
		for _, s := range read.Sample {
			blocks, inUse = blocks+s.Value[2], inUse+s.Value[3]
		}
		if blocks != int64(len(live)) || inUse != mem.Stats().LiveBytes {
			t.Errorf("by the text %d blocks of %d bytes, want %d of %d", blocks, inUse, len(live), mem.Stats().LiveBytes)
		}
	}
	for i, b := range live {
		by := mem
		if i%3 == 2 && i/3 < len(children) {
			by = children[i/3]
		}
		if err := by.Free(b); err != nil {
			t.Error(err)
		}
	}
}

// TestUglySymbols: files and functions may have any names too, and so may what Go's own
// profile brings.
func TestUglySymbols(t *testing.T) {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "inuse_space", Unit: "bytes"}}, PeriodType: &profile.ValueType{Type: "space", Unit: "bytes"}}
	for i, ugly := range texttest.Table() {
		id := uint64(i + 1)
		m := &profile.Mapping{ID: id, Start: id << 20, Limit: (id + 1) << 20, File: ugly.Text, HasFunctions: true}
		f := &profile.Function{ID: id, Name: ugly.Text, SystemName: ugly.Text, Filename: ugly.Text}
		l := &profile.Location{ID: id, Mapping: m, Address: id << 20, Line: []profile.Line{{Function: f, Line: 1}}}
		p.Mapping, p.Function, p.Location = append(p.Mapping, m), append(p.Function, f), append(p.Location, l)
		p.Sample = append(p.Sample, &profile.Sample{Location: []*profile.Location{l}, Value: []int64{1}})
	}
	clean(p)
	content := written(t, p)
	for _, read := range []*profile.Profile{parse(t, content), viaTool(t, content)} {
		valid(t, read)
		if len(read.Sample) != len(p.Sample) {
			t.Errorf("%d samples, want %d", len(read.Sample), len(p.Sample))
		}
	}
}

// writeFile writes content to a file and returns its name.
func writeFile(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// viaTool returns content as go tool pprof -proto reads it and writes it again.
func viaTool(t *testing.T, content []byte) *profile.Profile {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.pb.gz")
	goTool(t, "-proto", "-symbolize=none", "-output="+out, writeFile(t, content))
	again, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, again)
}

// valid fails t if a string of p is not UTF-8 or too long.
func valid(t *testing.T, p *profile.Profile) {
	t.Helper()
	check := func(what, s string, limit int) {
		if !utf8.ValidString(s) || len(s) > limit {
			t.Errorf("%s of %d bytes: %.60q", what, len(s), s)
		}
	}
	for _, m := range p.Mapping {
		check("mapping", m.File, text.MaxText)
	}
	for _, f := range p.Function {
		check("function", f.Name, text.MaxText)
		check("system name", f.SystemName, text.MaxText)
		check("file", f.Filename, text.MaxText)
	}
	for _, s := range p.Sample {
		for key, values := range s.Label {
			check("key", key, text.MaxName)
			for _, v := range values {
				check("value", v, text.MaxName)
			}
		}
	}
}
