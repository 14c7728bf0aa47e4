package ways

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// TestWays says which way this program goes, and fails where it is not the expected one: what
// the environment variable ALLOCTRACE_WAYS says, as .ci/modes sets it, or what the build says.
func TestWays(t *testing.T) {
	want := os.Getenv("ALLOCTRACE_WAYS")
	if want == "" {
		want = expected(t)
	}
	got := String()
	t.Logf("%s %s/%s: %s", runtime.Version(), runtime.GOOS, runtime.GOARCH, got)
	if got != want {
		t.Errorf("the ways are %s, want %s: has the Go runtime changed what is linked to, or its frames?", got, want)
	}
}

// expected returns the ways that the build settings allow.
func expected(t *testing.T) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("the test has no build information: set ALLOCTRACE_WAYS to what is expected")
	}
	var race, nolinkname bool
	for _, s := range info.Settings {
		race = race || s.Key == "-race" && s.Value == "true"
		nolinkname = nolinkname || s.Key == "-tags" && strings.Contains(s.Value, "alloctrace_nolinkname")
	}
	arch := runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64"
	want := Fast
	switch {
	case runtime.Compiler != "gc" || nolinkname || runtime.GOARCH == "wasm":
		want = Portable
	case !arch:
		want = "shards=picked random=runtime stacks=runtime.Callers"
	case race:
		want = "shards=picked random=runtime stacks=framepointers"
	}
	return want
}
