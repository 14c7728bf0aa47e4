package alloctest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// CheckAllFailures runs scenario, which allocates n times from mem, and then again with
// each of these allocations failing in turn, alone and together with all after it: the
// scenario must return the allocator's error, or one that wraps it, and have freed all
// that it allocated, through the Proxy or child that allocated it. It is
// [blocktest.CheckAllocationFailures], which has the details, and says of what is left who has
// allocated it.
func CheckAllFailures(t testing.TB, scenario func(mem *alloctrace.Proxy) error) {
	t.Helper()
	blocktest.CheckAllocationFailures(t, func(inner blockalloc.Allocator) error {
		t.Helper()
		profile := heapprofile.New(heapprofile.Options{Rate: 1})
		mem := alloctrace.Wrap(inner, alloctrace.WithCounter(counter.Exact()), alloctrace.WithHooks(profile))
		err := scenario(mem)
		switch report := strings.TrimSuffix(profile.Report().String(), "\n"); {
		case mem.Stats().LiveBlocks > 0:
			t.Errorf("alloctest: the scenario returns %q and leaves blocks behind: %s", fmt.Sprint(err), report)
		case profile.Stats().ForeignFrees > 0:
			t.Errorf("alloctest: the scenario returns %q: %s", fmt.Sprint(err), report)
		}
		return err
	})
}
