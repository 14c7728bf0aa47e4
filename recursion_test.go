package alloctrace_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/process"
)

// recursions are hooks that use the Proxy that they observe. Each is given how to allocate from it.
var recursions = map[string]func(allocate func()) []alloctrace.Hook{
	"plain": func(allocate func()) []alloctrace.Hook {
		return []alloctrace.Hook{alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { allocate() })}
	},
	"among others": func(allocate func()) []alloctrace.Hook {
		h := alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { allocate() })
		return []alloctrace.Hook{ring.New(4, nil), h, heapprofile.New(heapprofile.Options{Rate: 1})}
	},
	"in a Tee": func(allocate func()) []alloctrace.Hook {
		return []alloctrace.Hook{hooks.Tee(heapprofile.New(heapprofile.Options{Rate: 1}), alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { allocate() }))}
	},
	"in a Meter": func(allocate func()) []alloctrace.Hook {
		return []alloctrace.Hook{hooks.NewMeter(alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { allocate() }))}
	},
	"large frames": func(allocate func()) []alloctrace.Hook {
		return []alloctrace.Hook{alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) {
			var frame [16 << 10]byte
			frame[len(os.Args)]++
			allocate()
			runtime.KeepAlive(&frame)
		})}
	},
	"many frames": func(allocate func()) []alloctrace.Hook {
		return []alloctrace.Hook{alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { through(100, allocate) })}
	},
	"an owner": func(allocate func()) []alloctrace.Hook {
		return []alloctrace.Hook{heapprofile.New(heapprofile.Options{Rate: 1, Owner: func(context.Context) string {
			allocate()
			return ""
		}})}
	},
}

//go:noinline
func through(calls int, f func()) {
	if calls > 0 {
		through(calls-1, f)
		return
	}
	f()
}

// TestRecursion: a hook that uses the Proxy that it observes panics with what to do, before the
// stack is large. It is tried in a process of its own, which cannot have a large stack.
func TestRecursion(t *testing.T) {
	const variable = "ALLOCTRACE_TEST_RECURSION"
	if name := os.Getenv(variable); name != "" {
		recurse(name)
		return
	}
	if !process.CanStart(t) {
		return
	}
	for name := range recursions {
		for _, inner := range []string{"Heap", "Null"} {
			if inner == "Null" && name == "an owner" {
				continue // of blocks that there are
			}
			t.Run(name+" over "+inner, func(t *testing.T) {
				out, err := process.Again(t, variable+"="+name+"/"+inner).CombinedOutput()
				if err == nil {
					t.Errorf("the program ends well: %s", out)
				}
				if text := string(out); !strings.Contains(text, "recovered: alloctrace: a Hook allocates or frees through the Proxy that it observes") ||
					!strings.Contains(text, "Proxy.Quiet") || strings.Contains(text, "stack overflow") || strings.Contains(text, "goroutine stack exceeds") {
					t.Errorf("it ends with %.2000s", text)
				}
			})
		}
	}
}

func recurse(name string) {
	if runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" {
		debug.SetMaxStack(32 << 20) // elsewhere it is noticed later
	}
	name, over, _ := strings.Cut(name, "/")
	var inner blockalloc.Allocator = blockalloc.Null{}
	if over == "Heap" {
		inner = new(blockalloc.Heap)
	}
	var p *alloctrace.Proxy
	p = alloctrace.Wrap(inner, alloctrace.WithHooks(recursions[name](func() {
		_, _ = p.Allocate(blockalloc.Layout{Size: 64, Align: 64})
	})...))
	defer func() {
		fmt.Println("recovered:", recover())
		os.Exit(1)
	}()
	for range 100 {
		_, _ = p.Allocate(blockalloc.Layout{Size: 64, Align: 64})
	}
}

// TestNoRecursion: deep stacks, and hooks that allocate elsewhere, are none.
func TestNoRecursion(t *testing.T) {
	bottom := alloctrace.Wrap(new(blockalloc.Heap))
	for range 8 { // each has a hook that allocates from the one before
		below := bottom
		bottom = alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) {
			b, err := below.Allocate(blockalloc.Layout{Size: 8, Align: 8})
			if err = errors.Join(err, below.Free(b)); err != nil {
				t.Error(err)
			}
		})))
	}
	n := 0
	quiet := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { n++ })))
	for calls := 0; calls < 20_000; calls += 100 {
		through(calls, func() {
			for _, p := range []*alloctrace.Proxy{bottom, quiet, quiet.Quiet()} {
				if calls > 2000 && p == bottom {
					continue // it takes long
				}
				b, err := p.Allocate(blockalloc.Layout{Size: 8, Align: 8})
				if err = errors.Join(err, p.Free(b)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if n == 0 {
		t.Error("the hook is not called")
	}
}
