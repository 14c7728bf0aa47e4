package alloctrace_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/internal/process"
)

const module = "github.com/alloctrace/alloctrace"

// allowed says which packages each package may import beside the standard
// library, tests left out; a trailing /... is any package below. It is the picture
// of the house: an arrow that is not here is a mistake.
var allowed = map[string][]string{
	"internal/adapter.v2":             {module + "/blockalloc", module + "/internal/adapter.v2/inner"},
	"internal/adapter.v2/inner":       {module + "/blockalloc"},
	"internal/bugs":                   {module + "/blockalloc"},
	"internal/callers":                {},
	"internal/canary":                 {},
	"internal/fields":                 {},
	"internal/fields/root":            {},
	"internal/goroutine":              {},
	"internal/heapdump":               {},
	"internal/hidden":                 {},
	"internal/injected":               {},
	"internal/jaegertest":             {module + "/internal/process"},
	"internal/jaegertest/buildjaeger": {module + "/internal/jaegertest"},
	"internal/measure":                {module + "/blockalloc"},
	"internal/metrics":                {},
	"internal/pages":                  {"golang.org/x/sys/..."},
	"internal/process":                {},
	"internal/prometheustest":         {},
	"internal/random":                 {},
	"internal/reach":                  {module + "/internal/heapdump", module + "/internal/hidden", "golang.org/x/sys/..."},
	"internal/recursion":              {module + "/internal/callers", module + "/internal/goroutine"},
	"internal/shard":                  {},
	"internal/shard/shardtest":        {module + "/internal/shard"},
	"internal/short":                  {},
	"internal/stacks":                 {},
	"internal/stored":                 {},
	"internal/sources":                {module + "/blockalloc", module + "/counter"},
	"internal/spans":                  {},
	"internal/spantest":               {"go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/trace", "go.opentelemetry.io/otel/trace/noop"},
	"internal/text":                   {},
	"internal/text/texttest":          {},
	"internal/waits":                  {},
	"internal/ways":                   {module + "/internal/callers", module + "/internal/random", module + "/internal/shard"},
	"counter":                         {module + "/internal/shard"},
	"blockalloc":                      {module + "/internal/callers", module + "/internal/hidden", module + "/internal/injected", module + "/internal/pages", module + "/internal/shard", module + "/internal/spans", module + "/internal/waits", "golang.org/x/sys/..."},
	"blockalloc/arrowmem":             {module + "/blockalloc", module + "/internal/shard"},
	"blockalloc/backstop":             {module + "/blockalloc", module + "/internal/callers", module + "/internal/hidden", module + "/internal/text"},
	"blockalloc/blocktest":            {module + "/blockalloc", module + "/blockalloc/failing"},
	"blockalloc/debug":                {module + "/blockalloc", module + "/internal/callers", module + "/internal/canary", module + "/internal/hidden", module + "/internal/pages", module + "/internal/spans"},
	"blockalloc/failing":              {module + "/blockalloc", module + "/internal/injected"},
	"blockalloc/grpcmem":              {module + "/blockalloc", module + "/blockalloc/backstop"},
	"blockalloc/guard":                {module + "/blockalloc", module + "/blockalloc/debug", module + "/internal/callers", module + "/internal/canary", module + "/internal/hidden", module + "/internal/pages", module + "/internal/random"},
	"blockalloc/typed":                {module + "/blockalloc"},
	"internal/region":                 {module + "/internal/shard", module + "/internal/waits"},
	"":                                {module + "/blockalloc", module + "/counter", module + "/internal/recursion", module + "/internal/region"},
	"hooks":                           {module, module + "/internal/random", module + "/internal/text"},
	"hooks/heapprofile":               {module, module + "/blockalloc", module + "/counter", module + "/hooks", module + "/internal/callers", module + "/internal/goroutine", module + "/internal/hidden", module + "/internal/random", module + "/internal/reach", module + "/internal/shard", module + "/internal/stacks", module + "/internal/text"},
	"hooks/ring":                      {module, module + "/hooks", module + "/internal/goroutine", module + "/internal/hidden", module + "/internal/shard", module + "/internal/stored"},
	"hooks/blackbox": {
		module, module + "/counter", module + "/hooks", module + "/hooks/heapprofile", module + "/hooks/ring", module + "/internal/callers",
		module + "/internal/pages", module + "/internal/shard", module + "/internal/stored", module + "/internal/text", "golang.org/x/sys/...",
	},
	"alloctest":             {module, module + "/blockalloc", module + "/blockalloc/backstop", module + "/blockalloc/blocktest", module + "/blockalloc/debug", module + "/counter", module + "/hooks/heapprofile", module + "/internal/callers"},
	"internal/instructions": {module, module + "/blockalloc", module + "/counter", module + "/hooks/heapprofile", module + "/hooks/ring"},
	"hooks/production": {
		module, module + "/blockalloc", module + "/blockalloc/debug", module + "/blockalloc/guard", module + "/hooks/blackbox", module + "/hooks/heapprofile", module + "/hooks/ring",
	},
	"hooks/sloghook": {module, module + "/internal/text"},
	"hooks/zlog":     {module, module + "/internal/text", "github.com/rs/zerolog", "go.opentelemetry.io/otel/trace"},
	"tracer": {
		module, module + "/blockalloc", module + "/blockalloc/debug", module + "/counter", module + "/hooks/heapprofile", module + "/internal/region", module + "/internal/text",
		"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/trace",
	},
	"internal/requests": {
		module + "/tracer",
		"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/metric", "go.opentelemetry.io/otel/metric/noop",
	},
	"tracer/tracehttp": {
		module, module + "/blockalloc", module + "/internal/requests", module + "/internal/text", module + "/tracer",
		"go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/metric", "go.opentelemetry.io/otel/trace",
	},
	"tracer/flight": {
		module, module + "/blockalloc", module + "/counter", module + "/hooks", module + "/hooks/heapprofile", module + "/hooks/ring", module + "/internal/text", module + "/tracer",
		"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/trace",
	},
}

// nested says the same of the modules below blockalloc, which are in the workspace alone.
var nested = map[string][]string{
	"blockalloc/cmem":                {module + "/blockalloc", module + "/internal/spans"},
	"blockalloc/cmem/internal/ctest": {module + "/blockalloc"},
}

// below are the packages of the root module that exporters may import: those that an exporter reads.
var below = []string{
	module, module + "/blockalloc", module + "/counter", module + "/hooks", module + "/hooks/heapprofile",
	module + "/internal/callers", module + "/internal/metrics", module + "/internal/sources", module + "/internal/text",
}

// exporters says which packages each exporter may import beside those below. None imports another, but that rss, which reads
// the kernel, is shown by three, otlp and the command write files with otlpfile, and the command reads, replays and serves those of recording. Nor do tests. Tracegrpc is a middleware on top of tracer,
// and wazeromem, a module of its own as they are, an adapter on top of the root.
var exporters = map[string][]string{
	"exporters/cmd/alloctrace":                  {"charm.land/bubbletea/v2", "github.com/charmbracelet/x/ansi", "github.com/charmbracelet/x/term", "github.com/google/pprof/profile", "github.com/parquet-go/parquet-go", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/sdk/...", "go.opentelemetry.io/otel/trace", "google.golang.org/protobuf/encoding/protowire", module + "/blockalloc/cmem", module + "/exporters/cmd/alloctrace/internal/preload", module + "/exporters/debugpage", module + "/exporters/internal/page", module + "/exporters/otlpfile", module + "/exporters/recording", module + "/exporters/recording/history", module + "/exporters/recording/replay", module + "/hooks/blackbox"},
	"exporters/cmd/alloctrace/internal/preload": {},
	"exporters/cmd/alloctrace/internal/planted": {module + "/exporters/internal/plant", module + "/exporters/recording", module + "/hooks/blackbox"},
	"exporters/debugpage":                       {module + "/exporters/internal/page", module + "/exporters/internal/pagemap", module + "/exporters/rss", module + "/hooks/ring"},
	"exporters/debugpage/internal/planted":      {module + "/exporters/debugpage", module + "/exporters/internal/plant"},
	"exporters/expvars":                         {},
	"exporters/internal/plant":                  {module + "/hooks/ring"},
	"exporters/internal/page":                   {module + "/exporters/rss"},
	"exporters/internal/pagemap":                {},
	"exporters/memlimit":                        {"golang.org/x/sys/..."},
	"exporters/memlimit/internal/growth":        {module + "/exporters/memlimit"},
	"exporters/memlimit/plot":                   {module + "/exporters/memlimit/internal/growth"},
	"exporters/otellog":                         {"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/log", module + "/tracer"},
	"exporters/otelmetric":                      {"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/metric", "go.opentelemetry.io/otel/sdk/instrumentation", "go.opentelemetry.io/otel/sdk/metric", "go.opentelemetry.io/otel/sdk/metric/metricdata", module + "/exporters/rss"},
	"exporters/otelmetric/internal/test":        {},
	"exporters/otlp":                            {"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/...", "go.opentelemetry.io/proto/otlp/...", "google.golang.org/grpc", "google.golang.org/grpc/...", "google.golang.org/protobuf/...", module + "/exporters/otlpfile"},
	"exporters/otlpfile":                        {"go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/sdk/instrumentation", "go.opentelemetry.io/otel/sdk/resource", "go.opentelemetry.io/otel/sdk/trace", "go.opentelemetry.io/otel/trace"},
	"exporters/pprof":                           {"github.com/google/pprof/profile"},
	"exporters/prometheus":                      {"github.com/prometheus/...", module + "/exporters/rss"},
	"exporters/recording":                       {"github.com/klauspost/compress/zstd", module + "/internal/callers", module + "/internal/region", module + "/internal/shard", module + "/internal/stacks"},
	"exporters/recording/history":               {module + "/exporters/recording"},
	"exporters/recording/replay":                {module + "/exporters/recording"},
	"exporters/rss":                             {"golang.org/x/sys/...", module + "/exporters/internal/pagemap"},
	"exporters/tracegrpc":                       {"go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/metric", "go.opentelemetry.io/otel/trace", "google.golang.org/grpc", module + "/internal/requests", module + "/tracer"},
	"exporters/tracegrpc/internal/test":         {},
	"blockalloc/wazeromem":                      {"github.com/tetratelabs/wazero/api", "github.com/tetratelabs/wazero/experimental"},
}

// noThirdParty are the packages that depend, through others too, on nothing
// outside the standard library and this module but golang.org/x/sys.
var noThirdParty = []string{
	"", "alloctest", "hooks", "hooks/blackbox", "hooks/heapprofile", "hooks/production", "hooks/ring", "hooks/sloghook", "blockalloc", "blockalloc/arrowmem", "blockalloc/backstop", "blockalloc/blocktest", "blockalloc/failing", "blockalloc/grpcmem", "blockalloc/guard", "blockalloc/typed", "blockalloc/cmem", "counter",
	"exporters/debugpage", "exporters/expvars", "internal/jaegertest", "exporters/memlimit", "exporters/rss",
}

// noGRPC are packages with dependencies of which none, through others too, is gRPC.
var noGRPC = []string{"exporters/otellog", "exporters/otelmetric", "exporters/cmd/alloctrace", "exporters/otlpfile", "exporters/prometheus", "exporters/pprof", "examples/indexer", "examples/pagecache", "examples/quickstart"}

// noProtobuf are those of which none is protobuf either, of what is compiled for somebody's first look.
var noProtobuf = []string{"exporters/otellog", "exporters/otlpfile", "examples/indexer", "examples/pagecache", "examples/quickstart"}

type goPackage struct {
	ImportPath                         string
	Standard                           bool
	Imports, TestImports, XTestImports []string
	Deps                               []string
}

func needGo(t *testing.T) {
	t.Helper()
	if !process.CanStart(t) {
		t.Skip("the import graph is read with the go command, which would be a process")
	}
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
		cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Imports,TestImports,XTestImports,Deps"}, args...)...)
		goarch := "amd64"
		if goos == "js" {
			goarch = "wasm"
		}
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
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

// mayImport returns what a package may import beside the standard library. Programs may import what they like, tests of
// other packages too.
func mayImport(name string) (want []string, known bool) {
	if own, ok := exporters[name]; ok {
		return append(slices.Clone(below), own...), true
	}
	if own, ok := nested[name]; ok {
		return own, true
	}
	want, known = allowed[name]
	return want, known
}

// wrongImports returns what is wrong with the imports of a package.
func wrongImports(p goPackage) (wrong []string) {
	name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
	for _, c := range []struct {
		lack   []string
		module string
	}{{noGRPC, "google.golang.org/grpc/"}, {noProtobuf, "google.golang.org/protobuf/"}} {
		for _, path := range p.Deps {
			if slices.Contains(c.lack, name) && strings.HasPrefix(path+"/", c.module) {
				wrong = append(wrong, fmt.Sprintf("package %s must not depend on %s", p.ImportPath, path))
			}
		}
	}
	if strings.HasPrefix(name, "examples/") {
		return wrong
	}
	want, ok := mayImport(name)
	if !ok {
		return []string{fmt.Sprintf("package %s is not in the picture: add it to allowed or exporters in deps_test.go", p.ImportPath)}
	}
	may := func(path string) bool {
		return standard(path) || slices.ContainsFunc(want, func(w string) bool {
			below, any := strings.CutSuffix(w, "...")
			return path == w || any && strings.HasPrefix(path, below)
		})
	}
	for _, path := range p.Imports {
		if !may(path) {
			wrong = append(wrong, fmt.Sprintf("package %s must not import %s", p.ImportPath, path))
		}
	}
	own, _, _ := strings.Cut(strings.TrimPrefix(name, "exporters/"), "/")
	own = module + "/exporters/" + own
	for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
		planted := path == module+"/exporters/internal/plant" // a program for tests
		if strings.HasPrefix(path, module+"/exporters/") && path != own && !strings.HasPrefix(path, own+"/") && !planted && !may(path) {
			wrong = append(wrong, fmt.Sprintf("a test of package %s must not import %s", p.ImportPath, path))
		}
	}
	if slices.Contains(noThirdParty, name) {
		for _, path := range p.Deps {
			if !standard(path) && path != module && !strings.HasPrefix(path, module+"/") && !strings.HasPrefix(path, "golang.org/x/sys/") {
				wrong = append(wrong, fmt.Sprintf("package %s must not depend on %s", p.ImportPath, path))
			}
		}
	}
	return wrong
}

func TestImports(t *testing.T) {
	pattern := "work" // all modules, in a clone
	if _, err := os.Stat("go.work"); err != nil {
		pattern = "./..."
	}
	seen := make(map[string]bool)
	for _, p := range list(t, pattern) {
		seen[strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")] = true
		for _, wrong := range wrongImports(p) {
			t.Error(wrong)
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("package %q is in allowed and not in the module", name)
		}
	}
	for _, modules := range []map[string][]string{exporters, nested} {
		for name := range modules {
			if !seen[name] && pattern == "work" {
				t.Errorf("package %q is in exporters or nested and not in the workspace", name)
			}
		}
	}
}

// TestEmulated: tests of the root module run under emulators too, and those that start processes ask first whether they can.
func TestEmulated(t *testing.T) {
	const asks = module + "/internal/process"
	for _, p := range list(t, "./...") {
		imports := slices.Concat(p.TestImports, p.XTestImports)
		if slices.Contains(imports, "os/exec") && !slices.Contains(imports, asks) {
			t.Errorf("the tests of %s import os/exec, and not %s: ask process.CanStart before a process is started", p.ImportPath, asks)
		}
	}
}

// testFiles calls f with the path and the text of each file of tests.
func testFiles(t *testing.T, f func(path, text string)) {
	needClone(t)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"): // in a worktree .git is a file
			return filepath.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			f(path, readFile(t, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestShort: packages with tests that can be short import internal/short, so that go test has them so.
func TestShort(t *testing.T) {
	canBe, are := make(map[string]bool), make(map[string]bool)
	testFiles(t, func(path, text string) {
		dir := filepath.Dir(path)
		canBe[dir] = canBe[dir] || strings.Contains(text, "testing.Sho"+"rt()")
		are[dir] = are[dir] || strings.Contains(text, `"`+module+`/internal/short"`)
	})
	if len(canBe) < 50 {
		t.Fatalf("tests of %d packages were read", len(canBe))
	}
	for dir := range canBe {
		if canBe[dir] && !are[dir] {
			t.Errorf("%s has tests that can be short, and does not import %s/internal/short: do so in short_test.go", dir, module)
		}
	}
}

// TestSetup: .ci/setup installs the packages of Debian that tests say they need.
func TestSetup(t *testing.T) {
	needs := regexp.MustCompile(`\bneed(?:Program)?\(\w+, "[^"]+", "([^"]+)"\)|apt-get install ([a-z][a-z0-9 -]*)`)
	needClone(t)
	installed := strings.FieldsFunc(readFile(t, ".ci/setup"), func(r rune) bool { return strings.ContainsRune(" \n:;", r) })
	found := 0
	testFiles(t, func(path, text string) {
		for _, match := range needs.FindAllStringSubmatch(text, -1) {
			for name := range strings.FieldsSeq(match[1] + match[2]) {
				if found++; !slices.Contains(installed, name) {
					t.Errorf("%s needs the package %s, which .ci/setup does not install", path, name)
				}
			}
		}
	})
	if found < 10 {
		t.Errorf("%d needs were found", found)
	}
}

// TestWrongImports: arrows that must not be are found.
func TestWrongImports(t *testing.T) {
	for from, to := range map[string]string{
		"blockalloc":           module + "/counter",
		"counter":              "golang.org/x/sys/unix",
		"hooks":                module + "/tracer",
		"tracer":               "go.opentelemetry.io/otel/sdk/trace",
		"hooks/zlog":           module + "/exporters/otlp",
		"hooks/sloghook":       "go.opentelemetry.io/otel/trace",
		"exporters/expvars":    module + "/exporters/otlp",
		"exporters/memlimit":   module + "/exporters/rss",
		"exporters/pprof":      module + "/tracer",
		"exporters/rss":        "github.com/google/pprof/profile",
		"exporters/prometheus": "go.opentelemetry.io/otel",
		"exporters/otelmetric": "go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp",
		"exporters/otellog":    "go.opentelemetry.io/otel/sdk/log",
		"exporters/otlp":       module + "/internal/jaegertest",
		"exporters/otlpfile":   "google.golang.org/protobuf/proto",
		"blockalloc/wazeromem": "github.com/tetratelabs/wazero", // which imports the package in .ci/clients
		"exporters/new":        module,
		"new":                  "fmt",
	} {
		if len(wrongImports(goPackage{ImportPath: module + "/" + from, Imports: []string{"fmt", to}})) == 0 {
			t.Errorf("that package %s imports %s is not found", from, to)
		}
	}
	for from, to := range map[string]string{
		"exporters/expvars":                  module + "/exporters/otlp",
		"exporters/prometheus":               module + "/exporters/otelmetric",
		"exporters/otelmetric/internal/test": module + "/exporters/prometheus",
		"hooks":                              module + "/exporters/pprof",
	} {
		for _, p := range []goPackage{{TestImports: []string{to}}, {XTestImports: []string{to}}} {
			if p.ImportPath = module + "/" + from; len(wrongImports(p)) == 0 {
				t.Errorf("that a test of package %s imports %s is not found", from, to)
			}
		}
	}
	for from, to := range map[string]string{
		"": "github.com/rs/zerolog", "exporters/rss": "github.com/google/pprof/profile", "exporters/otelmetric": "google.golang.org/grpc/codes",
		"exporters/otlpfile": "google.golang.org/protobuf/proto", "examples/indexer": "google.golang.org/protobuf/proto",
		"examples/quickstart": "google.golang.org/protobuf/proto",
	} {
		if len(wrongImports(goPackage{ImportPath: strings.TrimSuffix(module+"/"+from, "/"), Deps: []string{to}})) == 0 {
			t.Errorf("that package %q depends on %s is not found", from, to)
		}
	}
}

// TestWorkspace: the workspace has the modules of .ci/modules.
func TestWorkspace(t *testing.T) {
	needClone(t)
	var used []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\.[\w./]*)$`).FindAllStringSubmatch(readFile(t, "go.work"), -1) {
		used = append(used, strings.TrimPrefix(m[1], "./"))
	}
	modules := strings.Fields(readFile(t, ".ci/modules"))
	slices.Sort(used)
	slices.Sort(modules)
	if !slices.Equal(used, modules) {
		t.Errorf("go.work has %q, and .ci/modules %q", used, modules)
	}
}

// TestRequirements: the root module requires three families and nothing else.
func TestRequirements(t *testing.T) {
	needGo(t)
	cmd := exec.Command("go", "mod", "edit", "-json", "go.mod")
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	data, err := cmd.Output()
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
