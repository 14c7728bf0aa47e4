package blockalloc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
)

// faultVariable is in the environment of the process that ReportFaults starts.
const faultVariable = "ALLOCTRACE_REPORT_FAULTS"

// ReportFaults has the crash output of this program tell, for a fault that no
// [Debug.Catch] catches, of the block that was accessed: what the error of Catch says,
// but for who accessed it, which is in Go's own output. It goes to standard error after
// that output. Call it first in main, or in TestMain before m.Run:
//
//	if err := blockalloc.ReportFaults(); err != nil {
//		log.Print(err) // faults end the program without a report
//	}
//
// A program cannot look into itself once it has crashed. So ReportFaults starts this
// program a second time, with the same arguments and environment, and
// ALLOCTRACE_REPORT_FAULTS in it. There ReportFaults does not return: it waits for the first to end and, if that
// was by a fault near a block, reports. What a program does before that call, the init
// functions of its packages too, is therefore done twice. The second process ignores
// what interrupts the first, and ends with it.
//
// From then on each block with guard pages, of every Debug, costs three writes to a
// pipe, of some 4 µs each: when it is allocated, freed and unmapped. Blocks that are
// older are not known, nor those without guard pages, whose memory does not fault. Without
// ReportFaults the cost is an atomic load each. The program's one
// [debug.SetCrashOutput] is taken.
//
// It returns an error if the second process cannot be started, which wraps
// [errors.ErrUnsupported] where there are no guard pages (js/wasm, wasip1, plan9), and
// no process is left then. Another call does nothing and returns what the first did. If
// the second process is killed, the program goes on without it. Where this program is
// the first process of a container, its end is the end of the other too, which may
// come before the report.
func ReportFaults() error {
	if faultPipe.Load() == nil && bubble() != 0 {
		return errors.New("blockalloc: ReportFaults in a testing/synctest bubble, which could not end: call it first in main, or in TestMain")
	}
	return reportFaults()
}

var reportFaults = sync.OnceValue(func() error {
	if os.Getenv(faultVariable) != "" {
		signal.Ignore(interrupts...)
		watchFaults(os.Stdin, os.Stderr)
		os.Exit(0)
	}
	if err := startWatcher(); err != nil {
		return fmt.Errorf("blockalloc: ReportFaults: %w: faults end the program without a report", err)
	}
	return nil
})

// faultPipe leads to the process that watches, if there is one.
var faultPipe atomic.Pointer[os.File]

// startWatcher starts the process that watches, and has the runtime and every Debug
// write to it.
func startWatcher() error {
	if !hasGuards {
		return fmt.Errorf("%w on %s/%s, which has no guard pages", errors.ErrUnsupported, runtime.GOOS, runtime.GOARCH)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	watcher, err := os.StartProcess(program, os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), faultVariable+"=1"),
		Files: []*os.File{out, null, os.Stderr},
	})
	if err != nil {
		_ = in.Close()
		return err
	}
	// This makes the pipe's end a blocking one, so that nothing is lost when it is full.
	if err := debug.SetCrashOutput(in, debug.CrashOptions{}); err != nil {
		_ = in.Close() // which ends the watcher
		_, _ = watcher.Wait()
		return err
	}
	go func() { _, _ = watcher.Wait() }() // so that it is no zombie if it is killed
	watcherPid = watcher.Pid
	faultPipe.Store(in)
	return nil
}

var watcherPid int // for tests

// What becomes of a block with guard pages: the first byte of a record. The watcher is
// told before it is so, and of an allocation before anybody has the block: records
// of one address are in order, whoever uses it.
const (
	faultAllocated = 'A' // followed by its place, its mapping, the accessible pages, and the stack
	faultFreed     = 'F' // by its address, and the stack
	faultUnmapped  = 'U' // by its address
)

// A record is a run of numbers between two bytes that are in no crash output, for
// which the runtime writes to the same pipe. With 64 frames it has less than the 512
// bytes that every Unix writes to a pipe in one piece. Stacks are relative to a function:
// the watcher may be loaded elsewhere.
const (
	faultBegin = '\x02'
	faultEnd   = '\x03'
	faultBase  = 36 // of the numbers
)

func textBase() uintptr { return reflect.ValueOf(NewDebug).Pointer() }

// tellWatcher of a block. If the watcher is gone, nobody tells it any more.
func (r *debugBlock) tellWatcher(what byte, stack DebugStack) {
	pipe := faultPipe.Load()
	if pipe == nil || !r.guarded() {
		return
	}
	if _, err := pipe.Write(r.faultRecord(what, stack)); err != nil {
		faultPipe.CompareAndSwap(pipe, nil)
	}
}

func (r *debugBlock) faultRecord(what byte, stack DebugStack) []byte {
	numbers := make([]uintptr, 0, 7+maxDebugStack)
	numbers = append(numbers, r.place.Addr)
	if what == faultAllocated {
		l := r.place.Layout
		numbers = append(numbers, l.Size, l.Align, r.region.Addr(), r.region.size, r.from.Addr(), r.from.size)
	}
	base := textBase()
	for _, pc := range stack {
		numbers = append(numbers, pc-base)
	}
	record := append(make([]byte, 0, 512), faultBegin, what)
	for _, n := range numbers {
		record = strconv.AppendInt(append(record, ' '), int64(int(n)), faultBase)
	}
	return append(record, faultEnd)
}

// watchFaults reads what the watched process tells, until that ends, and then writes
// the report on its fault, if there was one.
func watchFaults(from io.Reader, to io.Writer) {
	if report := newFaultWatcher().watch(from); report != nil {
		fmt.Fprintf(to, "\n%v\n", report)
	}
}
