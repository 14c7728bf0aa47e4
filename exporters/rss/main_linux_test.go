package rss_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// child is the variable that has this test binary be the program, a fresh process of which
// all memory is known. Its value privateReads has the program write where it would read.
const (
	child        = "ALLOCTRACE_RSS"
	privateReads = "private reads"
)

// program is nil under a detector, which has memory of its own.
var program func()

func TestMain(m *testing.M) {
	// What is touched is what is resident, whatever the system does about huge pages. A kernel
	// without them refuses.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	if os.Getenv(child) == "" {
		os.Exit(m.Run())
	}
	program()
}
