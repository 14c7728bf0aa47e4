package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/hooks/sloghook"
	"github.com/alloctrace/alloctrace/hooks/zlog"
)

// A construct is a row of the table. What prepare does is not measured; what it returns is.
type construct struct {
	name    string
	prepare func() (run func() error, err error)
}

var (
	page = blockalloc.BlockLayout(4 << 10)
	kept atomic.Pointer[[64]byte] // what it holds is on the heap
)

// constructs returns the rows. Those that log write a line with a text and a number; those of a Proxy with a hook that writes
// have two lines, of a block that is allocated and freed.
func constructs() []construct {
	const text = "allocated"
	size := page.Size
	return []construct{
		{"nothing", call(func() {})},
		{"new([64]byte)", call(func() { kept.Store(new([64]byte)) })},

		{"fmt.Println", call(func() { fmt.Println(text, size) })},
		{"fmt.Fprintln(os.Stderr)", call(func() { fmt.Fprintln(os.Stderr, text, size) })},
		{"os.Stderr.Write", func() (func() error, error) {
			line := []byte("allocated 4096\n")
			return func() error { _, err := os.Stderr.Write(line); return err }, nil
		}},
		{"println", call(func() { println(text, size) })},
		{"log.Println", call(func() { log.Println(text, size) })},
		{"slog, text", func() (func() error, error) {
			logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
			return func() error { logger.Info(text, "size", size); return nil }, nil
		}},
		{"slog, JSON", func() (func() error, error) {
			logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
			return func() error { logger.Info(text, "size", size); return nil }, nil
		}},
		{"zerolog", func() (func() error, error) {
			logger := zerolog.New(os.Stderr)
			return func() error { logger.Info().Uint64("size", uint64(size)).Msg(text); return nil }, nil
		}},

		{"Proxy, no hook", proxy(func() alloctrace.Option { return alloctrace.WithHooks() })},
		{"Proxy, a hook that does nothing", proxy(func() alloctrace.Option {
			return alloctrace.WithHooks(alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) {}))
		})},
		{"Proxy, hooks.Writer", proxy(func() alloctrace.Option { return alloctrace.WithHooks(hooks.NewWriter(os.Stderr)) })},
		{"Proxy, ring", proxy(func() alloctrace.Option { return alloctrace.WithHooks(ring.New(1024, ring.PreciseClock())) })},
		{"Proxy, zlog", proxy(func() alloctrace.Option { return alloctrace.WithHooks(zlog.New(zerolog.New(os.Stderr))) })},
		{"Proxy, sloghook, text", proxy(func() alloctrace.Option {
			return alloctrace.WithHooks(sloghook.New(slog.NewTextHandler(os.Stderr, debug)))
		})},
		{"Proxy, sloghook, JSON", proxy(func() alloctrace.Option {
			return alloctrace.WithHooks(sloghook.New(slog.NewJSONHandler(os.Stderr, debug)))
		})},

		{"System", func() (func() error, error) { return pair(&blockalloc.System{}), nil }},
		{"Pool", func() (func() error, error) { return pair(&blockalloc.Pool{}), nil }},
		{"Slab of a Pool", func() (func() error, error) {
			slab, err := blockalloc.NewSlab(&blockalloc.Pool{}, 64<<10)
			return pair(slab), err
		}},
	}
}

var debug = &slog.HandlerOptions{Level: slog.LevelDebug}

// call is what needs no preparation.
func call(f func()) func() (func() error, error) {
	return func() (func() error, error) { return func() error { f(); return nil }, nil }
}

// pair allocates and frees a block of 4 KiB. A Slab of 64 KiB has it as a slot.
func pair(a blockalloc.Allocator) func() error {
	return func() error {
		b, err := a.Allocate(page)
		if err != nil {
			return err
		}
		return a.Free(b)
	}
}

// proxy is a Proxy around a Fixed, whose first block it has had before: what it allocates is for the Proxy and its hook.
func proxy(option func() alloctrace.Option) func() (func() error, error) {
	return func() (func() error, error) {
		inner, err := blockalloc.NewFixed(make([]byte, 2*page.Size)) // for its alignment
		if err != nil {
			return nil, err
		}
		return pair(alloctrace.Wrap(inner, option())), pair(inner)()
	}
}
