package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A progress shows how far the work is: on a terminal in one line that is
// rewritten, elsewhere in a line a second.
type progress struct {
	w        io.Writer
	terminal bool
}

func newProgress(w io.Writer) progress {
	p := progress{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// show prints text again and again until the func it returns is called, and then
// once more. text is called in another goroutine.
func (p progress) show(text func() string) (stop func()) {
	every, format := time.Second, "%s\n"
	if p.terminal {
		every, format = 100*time.Millisecond, "\r%-78.78s"
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(p.w, format, text())
			case <-ended:
				return
			}
		}
	})
	return func() {
		close(ended)
		wg.Wait()
		fmt.Fprintf(p.w, format, text())
		if p.terminal {
			fmt.Fprintln(p.w)
		}
	}
}
