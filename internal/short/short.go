// Package short has the long tests of a package that imports it run in their short form, as with -short, so that go test
// is quick on every machine. They run longer with -short=false, and in full with ALLOCTRACE_REQUIRE_ALL=1. Only tests import it.
package short

import (
	"flag"
	"os"
	"testing"
)

func init() {
	testing.Init()
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "" {
		_ = flag.Set("test.short", "true")
	}
}
