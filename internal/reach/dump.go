package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"
)

var (
	errUnsupported = fmt.Errorf("%w on %s/%s: no heap dump is written there", errors.ErrUnsupported, runtime.GOOS, runtime.GOARCH)
	errLeaked      = errors.New("a goroutineleak profile was taken that has found leaked goroutines: Go's runtime would end the program at a dump: fix them, or look for unreachable blocks in a new process before such a profile is taken")
)

// Dump collects garbage twice, for what pools and finalizers keep for one collection, and calls f with a dump of the heap. It returns for how long
// the dump has stopped the program. The dump is a file in [os.TempDir] meanwhile, as large as what is live on the Go heap, which only
// this user can read.
func Dump(ctx context.Context, f func(dump io.Reader) error) (pause time.Duration, err error) {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		return 0, errUnsupported
	}
	// The file is there first: what it takes is not of the dump.
	file, err := os.CreateTemp("", "alloctrace-*.heapdump")
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	for range 2 {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		runtime.GC()
	}
	if p := pprof.Lookup("goroutineleak"); p != nil && p.Count() > 0 {
		return 0, errLeaked
	}
	start := time.Now()
	debug.WriteHeapDump(file.Fd())
	pause = time.Since(start)
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return pause, err
	}
	if err := f(file); err != nil {
		return pause, fmt.Errorf("the dump in %s: %w", file.Name(), err)
	}
	return pause, nil
}
