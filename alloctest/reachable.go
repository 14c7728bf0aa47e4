package alloctest

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// VerifyReachable fails the test if live blocks of p have leaked for certain: if no Go object, variable, stack or other block of p that
// is reachable has an address in them. It can be called while the test runs, when what it holds is to be live. The failure lists the places that
// allocated them. [heapprofile.Profile.Unreachable] says what it costs, and what it does not see.
//
// With Go 1.27 it also fails for blocks that only the stack of a leaked goroutine holds, and names that: one that waits for what
// nothing can do any more. Go's runtime can dump no heap after it has found one, so that a later call in the same test binary fails too. With Go 1.26 the
// goroutines that wait with a block are named where the test fails for another one.
//
// p must be made by [New], with all stacks. Where Go writes no heap dump, such as on js, VerifyReachable checks nothing, and logs that.
func VerifyReachable(t TestingT, p *alloctrace.Proxy) {
	t.Helper()
	profile := Profile(p)
	if profile == nil || profile.Rate() != 1 {
		t.Errorf("alloctest: VerifyReachable(%v): it does not know every block: make the Proxy by New, with stacks of all blocks", p)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	u, err := profile.Unreachable(ctx)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		if l, ok := t.(interface{ Logf(string, ...any) }); ok {
			l.Logf("alloctest: VerifyReachable has checked nothing: %v", err)
		}
		return
	case err != nil:
		t.Errorf("alloctest: VerifyReachable(%v): %v", p, err)
		return
	}
	leaked := leakedOf(u.Held)
	if u.Report.Blocks == 0 && leaked == "" {
		return
	}
	t.Errorf("alloctest: %v has leaked blocks that are live\n%s%s", p, u, leaked)
}

// leakedGoroutine matches the line of a leaked goroutine in the profile of them.
var leakedGoroutine = regexp.MustCompile(`(?m)^goroutine (\d+) .*\[[^\]]*\(leaked\)`)

// leakedOf returns a line for each goroutine of held that has leaked, as far as the Go release can tell.
func leakedOf(held []heapprofile.Held) string {
	leaks := pprof.Lookup("goroutineleak")
	if len(held) == 0 || leaks == nil {
		return ""
	}
	var profile, lines strings.Builder
	if err := leaks.WriteTo(&profile, 2); err != nil {
		return fmt.Sprintf("the profile goroutineleak: %v\n", err)
	}
	ids := make(map[uint64]bool)
	for _, m := range leakedGoroutine.FindAllStringSubmatch(profile.String(), -1) {
		if id, err := strconv.ParseUint(m[1], 10, 64); err == nil {
			ids[id] = true
		}
	}
	for _, h := range held {
		if ids[h.Goroutine] {
			fmt.Fprintf(&lines, "goroutine %d has leaked: nothing can end its wait\n", h.Goroutine)
		}
	}
	return lines.String()
}
