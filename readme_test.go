package alloctrace_test

import (
	"os"
	"strings"
	"testing"
)

// TestREADME: the README's Go code is, but for indentation, the bodies of examples
// that compile and run.
func TestREADME(t *testing.T) {
	flat := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for line := range strings.Lines(string(data)) {
			b.WriteString(strings.TrimSpace(line) + "\n")
		}
		return b.String()
	}
	if _, err := os.Stat("exporters"); err != nil {
		if requireAll {
			t.Fatal(err)
		}
		t.Skip("the exporters module, which is not where this one was downloaded alone, has some of the code: run this in a clone")
	}
	examples := flat("hooks/zlog/example_test.go") + flat("alloctest/example_test.go") + flat("exporters/otlp/example_test.go")
	blocks := strings.Split(flat("README.md"), "```go\n")[1:]
	if len(blocks) != 3 {
		t.Errorf("%d blocks of Go, want 3", len(blocks))
	}
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		if !strings.Contains(examples, code) {
			t.Errorf("no example has this code:\n%s", code)
		}
	}
}
