package alloctest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks"
)

// CheckAllFailures runs scenario, which allocates n times from mem, and then again with
// each of these allocations failing in turn, alone and together with all after it: the
// scenario must return the allocator's error, or one that wraps it, and have freed all
// that it allocated. It is [blocktest.CheckAllocationFailures], which has the
// details, and says of what is left who has allocated it.
func CheckAllFailures(t testing.TB, scenario func(mem *alloctrace.Proxy) error) {
	t.Helper()
	blocktest.CheckAllocationFailures(t, func(inner blockalloc.Allocator) error {
		t.Helper()
		leaks := hooks.NewLeaks(1)
		mem := alloctrace.Wrap(inner, alloctrace.WithCounter(counter.Exact()), alloctrace.WithHooks(leaks))
		err := scenario(mem)
		if mem.Stats().LiveBlocks > 0 {
			t.Errorf("alloctest: the scenario returns %q and leaves blocks behind: %s", fmt.Sprint(err), strings.TrimSuffix(leaks.Report().String(), "\n"))
		}
		return err
	})
}
