package jaegertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// Times of the lock: its holder touches it every beat, and one that was not
// touched for lockStale belongs to a process that is gone.
const (
	lockBeat  = 2 * time.Second
	lockStale = time.Minute
	lockPoll  = 200 * time.Millisecond
)

// lock makes the folder dir, which exists for one process at a time, waiting
// for as long as another has it. A lock left behind is taken over. Should two
// processes take it over at once, both build, which costs time and nothing
// else, for the result is renamed into place.
func lock(ctx context.Context, dir string, progress io.Writer) (unlock func(), err error) {
	for reported := false; ; {
		err := os.Mkdir(dir, 0o777)
		if err == nil {
			return hold(dir), nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if fi, err := os.Stat(dir); err == nil && time.Since(fi.ModTime()) > lockStale {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		if !reported {
			reported = true
			fmt.Fprintf(progress, "jaegertest: another process is building; waiting for %s to go\n", dir)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// hold keeps the lock fresh until it is released.
func hold(dir string) (unlock func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		beat := time.NewTicker(lockBeat)
		defer beat.Stop()
		for {
			select {
			case <-stop:
				os.Remove(dir)
				return
			case now := <-beat.C:
				os.Chtimes(dir, now, now)
			}
		}
	}()
	return sync.OnceFunc(func() { close(stop); <-done })
}
