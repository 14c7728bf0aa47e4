package callers

import (
	"maps"
	"runtime"
	"strings"
	"testing"
)

func TestCut(t *testing.T) {
	for function, want := range map[string][2]string{
		"main.main":                                       {"main", ".main"},
		"main.main.func1":                                 {"main", ".main.func1"},
		"runtime.goexit":                                  {"runtime", ".goexit"},
		"net/http.(*conn).serve":                          {"net/http", ".(*conn).serve"},
		"gopkg.in/yaml%2ev3.Marshal":                      {"gopkg.in/yaml.v3", ".Marshal"},
		"gopkg.in/yaml%2ev3.(*parser).parse":              {"gopkg.in/yaml.v3", ".(*parser).parse"},
		"gopkg.in/yaml%252ev3.Marshal.func1":              {"gopkg.in/yaml.v3", ".Marshal.func1"},
		"github.com/apache/arrow-go/v18/arrow.Table.Each": {"github.com/apache/arrow-go/v18/arrow", ".Table.Each"},
		"example.com/a.F[...]":                            {"example.com/a", ".F[...]"},
		"example.com/a.F[example.com/b/c.T]":              {"example.com/a", ".F[example.com/b/c.T]"},
		"example.com/a.(*T[...]).M.func2":                 {"example.com/a", ".(*T[...]).M.func2"},
		"example.com/a%2eb.Gen[...]).M.func1":             {"example.com/a.b", ".Gen[...]).M.func1"},
		"example.com/%e8%aa%9e.F":                         {"example.com/語", ".F"},
		"example.com/a%zz.F":                              {"example.com/a%zz", ".F"},
		"example.com/a%2.F":                               {"example.com/a%2", ".F"},
		"example.com/a%.F":                                {"example.com/a%", ".F"},
		"vendor/golang.org/x/net/http2.F":                 {"vendor/golang.org/x/net/http2", ".F"},
		"f":                                               {"", "f"},
		"":                                                {"", ""},
		"a/b":                                             {"", "a/b"},
		"[":                                               {"", "["},
	} {
		if of, name := cut(function); of != want[0] || name != want[1] {
			t.Errorf("%q is cut into %q and %q, want %q", function, of, name, want)
		}
	}
}

func TestHas(t *testing.T) {
	s, err := NewSkip([]string{"example.com/adapter", "github.com/apache/arrow-go/...", "main"})
	if err != nil {
		t.Fatal(err)
	}
	for of, want := range map[string]bool{
		"example.com/adapter":                         true,
		"example.com/adapter/below":                   false,
		"example.com/adapters":                        false,
		"other.example.com/adapter":                   false,
		"github.com/apache/arrow-go":                  true,
		"github.com/apache/arrow-go/v18/arrow/memory": true,
		"github.com/apache/arrow-gopher":              false,
		"main":                                        true,
		"main2":                                       false,
		"":                                            false,
		module:                                        true,
		module + "/blockalloc/failing":                true,
		module + "/blockalloc/blocktest":              false,
		module + "/blockalloc/blocktests":             true,
		module + "/exporters/memlimit":                true,
		module + "/examples/quickstart":               false,
		module + "/internal/bugs":                     false,
		module + "/exporters/internal/plant":          false,
		module + "s":                                  false,
	} {
		if got := s.has(of); got != want {
			t.Errorf("%q is skipped: %t", of, got)
		}
	}
	for folder, want := range map[string]bool{
		"/root/go/pkg/mod/github.com/apache/arrow-go/v18@v18.4.0/arrow/memory": true,
		"/src/vendor/github.com/apache/arrow-go/v18":                           true,
		"github.com/apache/arrow-go@v1.0.0":                                    true,
		"C:/src/vendor/example.com/adapter":                                    true,
		"/src/vendor/example.com/adapter/below":                                false,
		"/src/vendor/example.com/my-adapter":                                   false,
		"/src/main":                                                            false, // of any program
		".":                                                                    false,
	} {
		if got := s.hasFolder(folder); got != want {
			t.Errorf("what is in %q is skipped: %t", folder, got)
		}
	}
	if got, want := unversioned("/mod/github.com/!burnt!sushi/toml@v1.2.0/!"), "/mod/github.com/BurntSushi/toml/"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNewSkip(t *testing.T) {
	if _, err := NewSkip([]string{"a", "a/...", "gopkg.in/yaml.v3", "example.com/x_y~z+w-1/..."}); err != nil {
		t.Error(err)
	}
	const use = `: use import paths, such as "example.com/adapter", or "example.com/adapter/..." for all packages below as well`
	for pattern, want := range map[string]string{
		"":                      "it is empty",
		"/...":                  "it is empty",
		"...":                   `"..." stands after a slash, at the end`,
		"example.com/...":       "",
		"example.com/a...":      `"..." stands after a slash, at the end`,
		"a/.../b":               `"..." stands after a slash, at the end`,
		"./adapter":             "it is a folder",
		"../adapter/...":        "it is a folder",
		"/src/adapter":          "it is a folder",
		".":                     "it is a folder",
		"example.com/a@v1.2.0":  "it has a version",
		"example.com/a/":        "no package has that path",
		"example.com//a":        "no package has that path",
		"https://example.com/a": "no package has that path",
		"example.com/a.(*T).M":  "no package has that path",
		"example.com/*":         "no package has that path",
		"a, b":                  "no package has that path",
	} {
		if want != "" {
			want = `Skip has ` + quoted(pattern) + `: ` + want + use
		}
		switch _, err := NewSkip([]string{"good", pattern}); {
		case want == "" && err != nil, want != "" && (err == nil || err.Error() != want):
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func quoted(s string) string { return `"` + s + `"` }

// TestClosures: where a closure is inlined into another package it is known by its folder.
func TestClosures(t *testing.T) {
	s, err := NewSkip([]string{"example.com/adapter", "example.com/cached"})
	if err != nil {
		t.Fatal(err)
	}
	frames := []runtime.Frame{
		{Function: "main.main.Do.func1", File: "/src/adapter/a.go"},
		{Function: "example.com/adapter.Do", File: "/src/adapter/a.go"},
		{Function: "main.main.Ret.func2", File: "/mod/example.com/cached@v1.0.0/c.go"},
		{Function: "main.main.Ret.func3", File: "/mod/example.com/x@v1.0.0/adapter/x.go"},
		{Function: "main.main.Ret.func4", File: "x.go"},
		{Function: "example.com/x/y/z.F", File: "/mod/example.com/x@v1.0.0/y/z/z.go"},
		{Function: "example.com/adapter.Do.Mine.func1", File: "/src/mine/m.go"},
		{Function: "example.com/mine.Mine", File: "/src/mine/m.go"},
		{Function: "example.com/adapter.TestDo", File: "/src/adapter/a_test.go"},
		{Function: "example.com/adapter_test.TestMore", File: "/src/adapter/more_test.go"},
	}
	known := roots(frames)
	if want := map[string]string{"/src": "example.com", "/mod/example.com/x@v1.0.0": "example.com/x"}; !maps.Equal(known, want) {
		t.Errorf("%v, want %v", known, want)
	}
	for i, want := range []bool{true, true, true, false, false, false, false, false, false, false} {
		if got := s.skips(frames[i], frames); got != want {
			t.Errorf("%s in %s is skipped: %t", frames[i].Function, frames[i].File, got)
		}
	}
}

func TestClosureNames(t *testing.T) {
	for name, want := range map[string]bool{
		".F": false, ".(*T).M": false, ".F[...]": false, ".function": false, ".T.func_": false,
		".F.func1": true, ".F.func2.Maker.1": true, ".F.Maker.func12": true, ".Gen[...]).M.func1": true, ".F-range1": true, ".F.func1-range2": true,
	} {
		if got := closure(name); got != want {
			t.Errorf("%s is a closure: %t", name, got)
		}
	}
}

func TestLines(t *testing.T) {
	frames := []runtime.Frame{{Function: "example.com/a.F", File: "/src/a/f.go", Line: 3}, {Function: "main.main", File: "main.go", Line: 9}}
	if got, want := Lines(frames), "f.go:3 a.F\nmain.go:9 main.main"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Lines(nil); got != "" {
		t.Errorf("of none: %q", got)
	}
}

func FuzzCut(f *testing.F) {
	for _, s := range []string{"main.main", "gopkg.in/yaml%252ev3.(*T[...]).F.func1", "%", "a/%2e.", "[/.("} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, function string) {
		of, name := cut(function)
		if !strings.HasSuffix(function, name) || len(of)+len(name) > len(function) {
			t.Errorf("%q is cut into %q and %q", function, of, name)
		}
		if again := unescape(of); again != of {
			t.Errorf("%q of %q is escaped still: %q", of, function, again)
		}
		_ = closure(name)
		_ = unversioned(function)
	})
}
