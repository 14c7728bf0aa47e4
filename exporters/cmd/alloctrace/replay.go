package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/cmem"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// notReplayed is what replay exits with if the allocator failed, or the recording is damaged; shrink, if nothing fails.
const notReplayed = 1

// A target is the allocator that a recording is replayed on, as flags say.
type target struct {
	on    *string
	limit *int64
}

func targetFlags(f *flag.FlagSet) target {
	return target{
		f.String("on", "pool", "replay on this `ALLOCATOR`: pool, slab (over a pool), heap (Go's), malloc (C's, if the command was built with cgo), or system (a mapping a block)"),
		f.Int64("limit", 0, "let no more than `BYTES` be live"),
	}
}

// new returns a new allocator, and what gives its memory back.
func (t target) new() (a blockalloc.Allocator, end func() error, err error) {
	end = func() error { return nil }
	switch *t.on {
	case "pool":
		pool := new(blockalloc.Pool)
		a, end = pool, pool.Close
	case "slab":
		pool := new(blockalloc.Pool)
		slab, err := blockalloc.NewSlab(pool, 64<<10)
		if err != nil {
			return nil, nil, err
		}
		a, end = slab, func() error { return errors.Join(slab.Close(), pool.Close()) }
	case "heap":
		a = new(blockalloc.Heap)
	case "malloc":
		a = new(cmem.Malloc)
	case "system":
		a = new(blockalloc.System)
	default:
		return nil, nil, fmt.Errorf("-on %q: use pool, slab, heap, malloc or system", *t.on)
	}
	switch {
	case *t.limit < 0:
		return nil, nil, fmt.Errorf("-limit %d: use a number of bytes above 0", *t.limit)
	case *t.limit > 0:
		a = blockalloc.NewLimit(a, *t.limit)
	}
	return a, end, nil
}

func replayFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	on := targetFlags(f)
	alone := f.Bool("alone", false, leaveOutOld)
	asJSON := f.Bool("json", false, "print the result as JSON")
	var o replay.Options
	f.IntVar(&o.Goroutines, "goroutines", 1, "spread the operations over `N` goroutines")
	f.BoolVar(&o.Paced, "paced", false, "begin no operation before its time in the recording")
	f.BoolVar(&o.KeepGoing, "keep-going", false, "count failures, and report the first")
	f.BoolVar(&o.Edges, "edges", false, "check the first and the last 64 bytes of a block instead of all")
	f.BoolVar(&o.Addresses, "addresses", false, "compare the addresses of live blocks too")
	return func(args []string, out, errOut io.Writer) (int, error) {
		if len(args) != 1 {
			return failed, errUsage
		}
		a, end, err := on.new()
		if err != nil {
			return failed, err
		}
		r, err := open(args[0], *alone, errOut)
		if err != nil {
			return failed, err
		}
		p, damage := replay.Load(r.Events())
		debug.FreeOSMemory() // so that what reading has left is not in Result.Resident
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		o.Progress = shownProgress(errOut)
		result, err := replay.Run(ctx, p, a, o)
		var failure *replay.Failure
		if err != nil && !errors.As(err, &failure) && ctx.Err() == nil {
			return failed, err // wrong options
		}
		if err == nil {
			err = end()
		}
		if written := writeResult(out, result, damage, *asJSON); written != nil {
			return failed, written
		}
		if err = errors.Join(err, damage); err != nil {
			return notReplayed, err
		}
		return whole, nil
	}
}

func writeResult(out io.Writer, r replay.Result, damage error, asJSON bool) error {
	if !asJSON {
		_, err := io.WriteString(out, r.String())
		return err
	}
	all := struct {
		replay.Result
		Damage string `json:"damage,omitempty"`
	}{Result: r}
	if damage != nil {
		all.Damage = damage.Error()
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(all)
}
