package blockalloc

import (
	"os"
	"strings"
)

// WatcherPid is the process that ReportFaults has started.
func WatcherPid() int { return watcherPid }

// TellFaults has every Debug write to f what it tells a watcher, or to nobody if it is nil.
func TellFaults(f *os.File) { faultPipe.Store(f) }

// IsFaultPipeBroken reports whether the watcher has been given up.
func IsFaultPipeBroken() bool { return faultPipe.Load() == nil }

// WatchFaults returns what the watcher writes when it has read what it was told.
func WatchFaults(told string) string {
	var out strings.Builder
	watchFaults(strings.NewReader(told), &out)
	return out.String()
}

// TakeGuards counts so many more blocks of other Debugs that have mappings, less if n is
// negative.
func TakeGuards(n int64) { guardedByAll.Add(n) }

// MaxGuardedByAll is how many blocks of all Debugs have mappings at most.
const MaxGuardedByAll = defaultMaxGuarded
