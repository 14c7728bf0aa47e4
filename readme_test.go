package alloctrace_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
)

// needClone skips a test that reads other modules or documents of the repository.
func needClone(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("exporters/go.mod"); err != nil {
		if requireAll {
			t.Fatal(err)
		}
		t.Skip("the exporters, which are not where this module was downloaded alone, have some of what the README says: run this in a clone")
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "\r\n", "\n")
}

// TestLogLine: the line of log in the README is one of its program, whose memory is a mapping and not on the Go heap.
func TestLogLine(t *testing.T) {
	needClone(t)
	_, rest, _ := strings.Cut(readFile(t, "README.md"), "```json\n")
	text, _, _ := strings.Cut(rest, "\n")
	var line struct {
		Level, Allocator, Addr, Message string
		Size, Align                     uint64
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&line); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if !regexp.MustCompile(`^00007[0-9a-f]{7}0000$`).MatchString(line.Addr) {
		t.Errorf("the address %s is not that of a mapping at a multiple of 64 KiB", line.Addr)
	}
	if line.Size != 64<<10 || line.Align != 64<<10 || line.Allocator != "cache" || line.Message != alloctrace.Allocated.String() {
		t.Errorf("%s is not what the README's program logs", text)
	}
}

// TestModules: docs/stability.md has each module with its packages, and the versions that go.mod requires.
func TestModules(t *testing.T) {
	needClone(t)
	page := readFile(t, "docs/stability.md")
	row := func(first string) string {
		for line := range strings.Lines(page) {
			if strings.HasPrefix(line, "| "+first+" |") {
				return line
			}
		}
		t.Errorf("docs/stability.md has no row %q", first)
		return ""
	}
	for _, dir := range strings.Fields(readFile(t, ".ci/modules")) {
		if strings.HasPrefix(dir, "examples") || strings.Contains(dir, "/internal/") {
			continue
		}
		name := "`" + dir + "`"
		if dir == "." {
			name = "`alloctrace`"
		}
		modules := row(name)
		if dir != "exporters" {
			continue
		}
		packages, err := filepath.Glob("exporters/*/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range packages {
			dir := filepath.Dir(path)
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil && !strings.Contains(modules, "`"+filepath.Base(dir)+"`") {
				t.Errorf("docs/stability.md does not have package %s in module exporters", dir)
			}
		}
	}
	for _, r := range []struct{ first, file, module string }{
		{"Go", "go.mod", "go"},
		{"OpenTelemetry: root, `exporters/otelmetric`, `exporters/otlpfile`, `exporters/tracegrpc`", "go.mod", "go.opentelemetry.io/otel"},
		{"OpenTelemetry: root, `exporters/otelmetric`, `exporters/otlpfile`, `exporters/tracegrpc`", "exporters/otelmetric/go.mod", "go.opentelemetry.io/otel"},
		{"OpenTelemetry: root, `exporters/otelmetric`, `exporters/otlpfile`, `exporters/tracegrpc`", "exporters/otlpfile/go.mod", "go.opentelemetry.io/otel"},
		{"OpenTelemetry: root, `exporters/otelmetric`, `exporters/otlpfile`, `exporters/tracegrpc`", "exporters/tracegrpc/go.mod", "go.opentelemetry.io/otel"},
		{"gRPC: `exporters/tracegrpc`", "exporters/tracegrpc/go.mod", "google.golang.org/grpc"},
		{"OpenTelemetry: `exporters/otlp`, `exporters/otellog`", "exporters/otlp/go.mod", "go.opentelemetry.io/otel"},
		{"OpenTelemetry: `exporters/otlp`, `exporters/otellog`", "exporters/otellog/go.mod", "go.opentelemetry.io/otel"},
		{"zerolog", "go.mod", "github.com/rs/zerolog"},
		{"client_golang: `exporters/prometheus`", "exporters/prometheus/go.mod", "github.com/prometheus/client_golang"},
	} {
		m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(r.module) + ` v?(\d+\.\d+)`).FindStringSubmatch(readFile(t, r.file))
		if m == nil {
			t.Errorf("%s does not require %s", r.file, r.module)
		} else if cells := strings.Split(row(r.first), "|"); strings.TrimSpace(cells[2]) != m[1] {
			t.Errorf("docs/stability.md says %s for %s, and %s %s", cells[2], r.first, r.file, m[1])
		}
	}
}
