package blockalloc_test

import (
	"flag"
	"os"
	"testing"
)

// Long tests run in their short form, as with -short, so that go test is quick on every
// machine. They run longer with -short=false, and in full with ALLOCTRACE_REQUIRE_ALL=1.
func init() {
	testing.Init()
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "" {
		_ = flag.Set("test.short", "true")
	}
}

// allModes is whether tests run in full, which takes minutes on some machines: CI does so once.
var allModes = os.Getenv("ALLOCTRACE_REQUIRE_ALL") != ""
