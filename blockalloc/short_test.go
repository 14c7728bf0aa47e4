package blockalloc_test

import (
	"os"

	_ "github.com/alloctrace/alloctrace/internal/short" // long tests
)

// allModes is whether tests run in full, which takes minutes on some machines: CI does so once.
var allModes = os.Getenv("ALLOCTRACE_REQUIRE_ALL") != ""
