package vm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/examples/scheme/immix"
)

// limited returns a Machine that may have max bytes.
func limited(t *testing.T, max int64, o immix.Options) (*Machine, *blockalloc.Limit) {
	t.Helper()
	bound := blockalloc.NewLimit(alloctest.New(t, alloctest.WithStacks(alloctest.Off)), max)
	m, _ := newMachine(t, Options{Memory: func(string) blockalloc.Allocator { return bound }, Heap: o})
	return m, bound
}

// TestOutOfMemory: that is an error of the program, which can handle it, and the next form runs.
func TestOutOfMemory(t *testing.T) {
	for name, o := range map[string]immix.Options{"default": {}, "moving": {Evacuate: immix.Always, Check: true}} {
		t.Run(name, func(t *testing.T) {
			m, bound := limited(t, 2<<20, o)
			run(m, `
				(define (recur n) (cons n (recur n)))
				(define (grow l) (grow (cons 1 l)))
				(define-syntax try (syntax-rules () ((_ x) (guard (e ((out-of-memory? e) (error-object-message e))) x))))
				(define kept '())`)
			for _, text := range []string{"(recur 1)", "(grow '())", "(make-vector 1000000 0)", "(make-string 1000000)",
				"(let loop () (set! kept (cons 1 kept)) (loop))", "(apply + (make-list 200000 1))", "(list->vector (make-list 100000))"} {
				for range 3 {
					if got := run(m, text); !strings.HasPrefix(got, "error: out of memory: blockalloc: Limit.Allocate(") {
						t.Errorf("%s is %.200s", text, got)
					}
					if got := run(m, "(set! kept '()) (try "+text+")"); got != `"out of memory"` {
						t.Errorf("%s in a guard is %.200s", text, got)
					}
					if got := run(m, "(set! kept '()) (length (make-list 1000 1))"); got != "1000" {
						t.Errorf("after %s, a list of 1000 is %.200s", text, got)
					}
				}
			}
			if bound.Used() > bound.Max() {
				t.Errorf("%d bytes used, limit %d", bound.Used(), bound.Max())
			}
			_, n := m.heap.Last()
			t.Log(n, "collections")
		})
	}
}

// TestTooLarge: what no heap has room for is out of memory, also where its size overflows an int of 32 bits.
func TestTooLarge(t *testing.T) {
	m, _ := newMachine(t, Options{})
	for _, text := range []string{
		"(make-vector 1073741824)", "(make-string 1073741824)", "(make-string 536870912)",
		"(apply bytevector-append (make-list 16384 (make-bytevector 262144)))",
		"(apply string-append (make-list 16384 (make-string 65536)))",
		"(apply vector-append (make-list 16384 (make-vector 65536)))",
	} {
		if err := m.Run(strings.NewReader(text), nil); !errors.Is(err, blockalloc.ErrOutOfMemory) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if got := run(m, "(make-vector 1073741825)"); got != "error: make-vector: wants an integer from 0 to 1073741824, got 1073741825" {
		t.Error(got)
	}
}

// TestHashTableOutOfMemory: a table that has no memory for one more key has all the others.
func TestHashTableOutOfMemory(t *testing.T) {
	for kib := int64(512); kib < 1024; kib += 32 {
		m, _ := limited(t, kib<<10, immix.Options{})
		if got := run(m, `
			(define t (make-hash-table)) (define n 0)
			(guard (e ((out-of-memory? e) #f)) (let loop () (hash-table-set! t n n) (set! n (+ n 1)) (loop)))
			(let loop ((i 0)) (if (and (< i n) (hash-table-ref/default t i #f)) (loop (+ i 1)) (list (- n i) (- (hash-table-count t) n))))`); got != "#f\n(0 0)" {
			t.Errorf("in %d KiB, keys that are missing and that were counted too often: %s", kib, got)
		}
	}
}

// TestUncaught: the error of a program that is out of memory wraps that of the allocator.
func TestUncaught(t *testing.T) {
	m, _ := limited(t, 1<<20, immix.Options{})
	err := m.Run(strings.NewReader("(define l '()) (let loop () (set! l (cons l l)) (loop))"), nil)
	if !errors.Is(err, blockalloc.ErrLimit) {
		t.Errorf("%v", err)
	}
	for text, want := range map[string]Exit{"(exit)": 0, "(exit 7)": 7, "(exit #f)": 1, "(exit #t)": 0, "(emergency-exit 3)": 3,
		"(set! l 0) (dynamic-wind (lambda () #f) (lambda () (exit 4)) (lambda () (exit 5)))": 5} {
		if err := m.Run(strings.NewReader(text), nil); err != want {
			t.Errorf("%s ends with %v, want exit %d", text, err, want)
		}
	}
}

// injected reports whether err is that of a failing allocator, or of a program that was told of it.
func injected(err error) bool {
	return errors.Is(err, failing.ErrInjected) || err != nil && strings.Contains(err.Error(), failing.ErrInjected.Error())
}

// TestFailures fails each allocation and each Free of a block in turn, from the first on: one, or all allocations from it on.
// The program goes on or ends with the allocator's error, and all memory is given back.
func TestFailures(t *testing.T) {
	p := programs(t)["churn"]
	for _, c := range []struct{ free, all bool }{{}, {all: true}, {free: true}} {
		ended, went := 0, 0
		for n := int64(1); ; n++ {
			calls := int64(0)
			mem := failing.If(alloctest.New(t, alloctest.WithStacks(alloctest.Off)), func(call failing.Call) bool {
				if (call.Op == failing.OpFree) != c.free {
					return false
				}
				calls++
				return calls == n || c.all && calls > n
			})
			m, err := New(Options{
				Memory: func(string) blockalloc.Allocator { return mem },
				Heap:   immix.Options{Allowance: 64 << 10, Check: true},
				Out:    &strings.Builder{}, Args: []string{"churn", "300"},
			})
			if err == nil {
				err = m.Run(strings.NewReader(p[0]), nil)
				err = errors.Join(err, m.Close(), m.Close()) // a second Close gives back what the first could not
			}
			if err == nil {
				went++
			} else if ended++; !injected(err) {
				t.Fatalf("%+v: with call %d failing: %v", c, n, err)
			}
			if calls < n {
				break
			}
		}
		t.Logf("%+v: it ended %d times and went on %d times", c, ended, went)
		if ended == 0 || went == 0 {
			t.Errorf("%+v: it ended %d times and went on %d times", c, ended, went)
		}
	}
}

// TestCollectorFails: where each collection fails to give a block back, and an error cannot be raised either, the program ends
// with the allocator's error.
func TestCollectorFails(t *testing.T) {
	fail := false
	mem := failing.If(alloctest.New(t, alloctest.WithStacks(alloctest.Off)), func(call failing.Call) bool { return fail && call.Op == failing.OpFree })
	m, _ := newMachine(t, Options{Memory: func(string) blockalloc.Allocator { return mem }, Heap: immix.Options{Allowance: 1}})
	run(m, "(define (f) (make-vector 10000 1) (f))")
	fail = true
	for range 2 {
		if err := m.Run(strings.NewReader("(guard (e (#f #f)) (f))"), nil); !injected(err) {
			t.Error(err)
		}
	}
	fail = false
	if got := run(m, "(vector-length (make-vector 10000 1))"); got != "10000" {
		t.Errorf("when the allocator takes blocks back again: %s", got)
	}
}

// TestDanglingRoot: a value that the collector is not told of is found when it is used after a collection.
func TestDanglingRoot(t *testing.T) {
	d := debug.New(&blockalloc.Heap{}, debug.Options{Guard: true})
	m, _ := newMachine(t, Options{Memory: func(string) blockalloc.Allocator { return d }, Heap: immix.Options{Check: true}})
	run(m, "(define b (make-bytevector 100000 7))")
	hidden := m.globals[m.global(m.intern("b")).index]
	run(m, "(set! b (vector #f))")
	if err := m.heap.Collect(); err != nil {
		t.Fatal(err)
	}
	if d.Stats().GuardedBlocks > 0 {
		if err := d.Catch(func() { m.show(hidden, true) }); !errors.Is(err, blockalloc.ErrUseAfterFree) {
			t.Errorf("a dead bytevector can be printed: %v", err)
		}
	}
	defer func() {
		if r := fmt.Sprint(recover()); !strings.Contains(r, "its block was freed") {
			t.Errorf("a dead bytevector in a live vector: %s", r)
		}
		run(m, "(set! b #f)")
		m.heap.Set(m.globals[m.global(m.intern("b")).index], 0, False)
	}()
	b := m.globals[m.global(m.intern("b")).index]
	m.heap.Set(b, 0, hidden)
	defer m.heap.Set(b, 0, False)
	m.heap.Collect()
}

// TestClose: all is given back, also while a program holds memory.
func TestClose(t *testing.T) {
	mem := alloctest.New(t)
	m, err := New(Options{Memory: func(string) blockalloc.Allocator { return mem }, Out: &strings.Builder{}})
	if err != nil {
		t.Fatal(err)
	}
	if got := run(m, "(define v (make-vector 100000 '(1 2))) (vector-length v)"); got != "100000" {
		t.Error(got)
	}
	if live := mem.Stats().LiveBytes; live < 800_000 {
		t.Errorf("%d bytes are live outside the Go heap, with a vector of 100,000", live)
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	alloctest.AssertLive(t, mem, 0, 0)
}

// TestNew: what a Machine cannot do without is named.
func TestNew(t *testing.T) {
	defer func() {
		if r := recover(); r != "vm: New: pass Options.Memory and Options.Out" {
			t.Errorf("panic %v", r)
		}
	}()
	New(Options{})
}

// TestInterrupt ends programs that would never end: one that has not begun, and one that has collected.
func TestInterrupt(t *testing.T) {
	runs := make(chan struct{})
	signal := sync.OnceFunc(func() { close(runs) })
	m, _ := newMachine(t, Options{Heap: immix.Options{Around: func(collect func(blockalloc.Allocator) immix.Collection) {
		collect(nil)
		signal()
	}}})
	interrupted := func(text string) {
		t.Helper()
		if err := m.Run(strings.NewReader(text), nil); err != ErrInterrupted {
			t.Errorf("%s ends with %v", text, err)
		}
	}
	m.Interrupt() // for the next call
	interrupted("(let loop () (loop))")
	go func() {
		<-runs
		m.Interrupt()
	}()
	interrupted("(define (f) (guard (e (#t (f))) (list 1 2) (f))) (f)")
	if got := run(m, "(+ 1 2)"); got != "3" {
		t.Errorf("after an interrupt (+ 1 2) is %s", got)
	}
}

// TestParallel has machines in several goroutines, over one Proxy, each in its own child.
func TestParallel(t *testing.T) {
	mem := alloctest.New(t, alloctest.WithStacks(alloctest.Off))
	all := programs(t)
	t.Run("machines", func(t *testing.T) {
		for name, p := range all {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				child := mem.Child(name)
				m, out := newMachine(t, Options{Memory: func(string) blockalloc.Allocator { return child }, Args: []string{name}, Heap: immix.Options{Allowance: 32 << 10}})
				if err := m.Run(strings.NewReader(p[0]), nil); err != nil || out.String() != p[1] {
					t.Errorf("%v, it prints %s", err, out)
				}
			})
		}
	})
	alloctest.AssertLive(t, mem, 0, 0)
}

// TestCodeIsCollected: the code of forms that have run, and that no closure has, does not stay.
func TestCodeIsCollected(t *testing.T) {
	m, _ := newMachine(t, Options{})
	run(m, "(define keep #f)")
	for i := range 1000 {
		run(m, fmt.Sprintf("(set! keep (lambda (x) (vector x '(%d))))", i))
		if i%100 == 0 {
			run(m, "(gc)")
		}
	}
	if len(m.codes) > 700 {
		t.Errorf("%d codes after 1000 forms, of which one is in use", len(m.codes))
	}
	if got := run(m, "(keep 1)"); got != "#(1 (999))" {
		t.Errorf("the last is %s", got)
	}
}

// TestProcedures: blocks are allocated for the procedure that runs.
func TestProcedures(t *testing.T) {
	mem := alloctest.New(t)
	seen := make(map[string]int)
	m, _ := newMachine(t, Options{Memory: func(name string) blockalloc.Allocator {
		seen[name]++
		return mem
	}})
	run(m, "(define (fill n) (if (= n 0) '() (cons n (fill (- n 1))))) (define l (fill 10000))")
	if seen["fill"] < 8 {
		t.Errorf("blocks were allocated for %v: fill needs 8 and more", seen)
	}
}

// TestChurn runs a program of long and short lived objects, in a limit that leaves it little room: once, or as long
// as ALLOCTRACE_CHURN says, such as 1h.
func TestChurn(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("ALLOCTRACE_CHURN"))
	if err != nil && os.Getenv("ALLOCTRACE_CHURN") != "" {
		t.Fatalf("ALLOCTRACE_CHURN: %v", err)
	}
	p := programs(t)["churn"]
	const limit = 768 << 10
	m, bound := limited(t, limit, immix.Options{})
	m.o.Args = []string{"churn", "3000"}
	began := time.Now()
	rounds := 0
	for ok := true; ok; ok = time.Since(began) < duration {
		if err := m.Run(strings.NewReader(p[0]), nil); err != nil {
			t.Fatalf("round %d: %v", rounds, err)
		}
		if bound.Used() > limit {
			t.Fatalf("round %d: %d bytes used, limit %d", rounds, bound.Used(), limit)
		}
		rounds++
	}
	last, n := m.heap.Last()
	t.Logf("%d rounds, %d collections in %d bytes, the last: %+v", rounds, n, bound.Used(), last)
	if n < 3 {
		t.Errorf("%d collections", n)
	}
}
