package alloctrace_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/alloctrace/alloctrace"

// allowed says which packages each package may import beside the standard
// library, tests left out; a trailing /... is any package below. It is the picture
// of the house: an arrow that is not here is a mistake.
var allowed = map[string][]string{
	"internal/bugs":          {module + "/blockalloc"},
	"internal/callers":       {},
	"internal/measure":       {module + "/blockalloc"},
	"internal/random":        {},
	"internal/shard":         {},
	"internal/text":          {},
	"internal/text/texttest": {},
	"counter":                {module + "/internal/shard"},
	"blockalloc":             {module + "/internal/callers", module + "/internal/shard", "golang.org/x/sys/..."},
	"blockalloc/blocktest":   {module + "/blockalloc"},
	"blockalloc/typed":       {module + "/blockalloc"},
	"":                       {module + "/blockalloc", module + "/counter"},
	"hooks":                  {module, module + "/blockalloc", module + "/counter", module + "/internal/callers", module + "/internal/random", module + "/internal/shard", module + "/internal/text"},
	"alloctest":              {module, module + "/blockalloc", module + "/blockalloc/blocktest", module + "/counter", module + "/hooks"},
	"internal/instructions":  {module, module + "/blockalloc", module + "/hooks"},
	"hooks/zlog":             {module, module + "/internal/text", "github.com/rs/zerolog", "go.opentelemetry.io/otel/trace"},
	"tracer": {
		module, module + "/blockalloc", module + "/counter", module + "/internal/text",
		"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/trace",
	},
}

// noThirdParty are the packages that depend, through others too, on nothing
// outside the standard library and this module but golang.org/x/sys.
var noThirdParty = []string{"", "alloctest", "hooks", "blockalloc", "blockalloc/blocktest", "blockalloc/typed", "counter"}

type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

func needGo(t *testing.T) {
	t.Helper()
	if exec.Command("go", "version").Run() != nil {
		if requireAll {
			t.Fatal("the import graph is read with the go command, which cannot be run here")
		}
		t.Skip("the import graph is read with the go command: put it on PATH")
	}
}

// list runs go list for every platform that changes the imports.
func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	needGo(t)
	var all []goPackage
	for _, goos := range []string{"linux", "darwin", "freebsd", "windows", "js"} {
		cmd := exec.Command("go", append([]string{"list", "-json"}, args...)...)
		goarch := "amd64"
		if goos == "js" {
			goarch = "wasm"
		}
		cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd, err)
		}
		for d := json.NewDecoder(strings.NewReader(string(out))); ; {
			var p goPackage
			if err := d.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	return all
}

func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func TestImports(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		seen[name] = true
		want, ok := allowed[name]
		if !ok {
			t.Errorf("package %s is not in the picture: add it to allowed in deps_test.go", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			if !standard(path) && !slices.ContainsFunc(want, func(w string) bool {
				below, any := strings.CutSuffix(w, "...")
				return path == w || any && strings.HasPrefix(path, below)
			}) {
				t.Errorf("package %s must not import %s", p.ImportPath, path)
			}
		}
		if slices.Contains(noThirdParty, name) {
			for _, path := range p.Deps {
				if !standard(path) && !strings.HasPrefix(path, module) && !strings.HasPrefix(path, "golang.org/x/sys/") {
					t.Errorf("package %s must not depend on %s", p.ImportPath, path)
				}
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("package %q is in allowed and not in the module", name)
		}
	}
}

// TestRequirements: the root module requires three families and nothing else.
func TestRequirements(t *testing.T) {
	needGo(t)
	data, err := exec.Command("go", "mod", "edit", "-json", "go.mod").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(data, &mod); err != nil {
		t.Fatal(err)
	}
	families := make(map[string]bool)
	for _, r := range mod.Require {
		switch {
		case r.Indirect:
		case r.Path == "golang.org/x/sys", r.Path == "github.com/rs/zerolog":
			families[r.Path] = true
		case r.Path == "go.opentelemetry.io/otel", strings.HasPrefix(r.Path, "go.opentelemetry.io/otel/"):
			families["go.opentelemetry.io/otel"] = true
		default:
			t.Errorf("go.mod requires %s", r.Path)
		}
	}
	if len(families) != 3 {
		t.Errorf("go.mod requires %v, want three families", families)
	}
}
