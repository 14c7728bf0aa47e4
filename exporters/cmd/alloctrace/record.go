package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/cmd/alloctrace/internal/preload"
)

const recordName = "record"

// recordOptions are those of record.
type recordOptions struct {
	preload.Options
	to                string
	children, threads bool
}

func recordFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	var o recordOptions
	f.StringVar(&o.to, "o", "", "write the recording to this `FILE` (default PROGRAM.alloctrace)")
	f.IntVar(&o.Frames, "calls", 16, "record the innermost `N` calls of a stack, from 0 to 64")
	f.BoolVar(&o.children, "children", false, "record all processes that the program starts too, and what they execute, each in FILE.PID")
	f.BoolVar(&o.threads, "threads", false, "tell threads apart: each is a child")
	limit := f.String("limit", "16GiB", "stop when what a process has recorded takes so many `BYTES`, some 100 an event before it is packed")
	return func(args []string, out, errOut io.Writer) (int, error) {
		if len(args) == 0 {
			return failed, errUsage
		}
		var err error
		if o.MaxBytes, err = parseBytes(*limit); err != nil {
			return failed, err
		}
		if o.to == "-" {
			return failed, errors.New("-o -: the standard output is the program's: give a file")
		}
		if o.Frames < 0 || o.Frames > 64 {
			return failed, fmt.Errorf("-calls %d: use a number from 0 to 64", o.Frames)
		}
		return o.record(args, out, errOut)
	}
}

// record runs a program and returns what that has exited with: if it was killed by a signal, that and 128, as a shell does.
func (o *recordOptions) record(args []string, out, errOut io.Writer) (int, error) {
	program, err := exec.LookPath(args[0])
	if err != nil {
		return failed, err
	}
	if o.to == "" {
		o.to = filepath.Base(program) + ".alloctrace"
	}
	if err := writable(o.to, program); err != nil {
		return failed, err
	}
	dir, err := temporary(filepath.Dir(o.to), ".alloctrace-*") // where there is room for the recording
	if err != nil {
		return failed, err
	}
	defer os.RemoveAll(dir)
	libraries, err := temporary(os.TempDir(), "alloctrace-*")
	if err != nil {
		return failed, err
	}
	defer os.RemoveAll(libraries)
	ctx, stop := untilEnding()
	library, err := preload.Build(ctx, libraries)
	stop()
	if err != nil {
		return failed, err
	}
	if !o.children {
		o.Parent = os.Getpid()
	}
	cmd := exec.Command(program, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = o.Environ(os.Environ(), library, dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, errOut
	err = runForeground(cmd)
	if cmd.ProcessState == nil {
		return failed, err
	}
	ctx, stop = untilEnding()
	defer stop()
	problem := o.write(ctx, dir, cmd.ProcessState, program, errOut)
	status := exitStatus(cmd.ProcessState)
	if status == whole && problem != nil {
		status = damaged
		if errors.Is(problem, errNothing) {
			status = failed
		}
	}
	return status, problem
}

// writable returns what is wrong with the recording's path, before the program has run.
func writable(to, program string) error {
	info, err := os.Stat(to)
	if err != nil {
		return nil // it will be made
	}
	if info.IsDir() {
		return fmt.Errorf("-o %s: it is a directory: give a file", to)
	}
	if of, err := os.Stat(program); err == nil && os.SameFile(info, of) {
		return fmt.Errorf("-o %s: it is the program: give another file", to)
	}
	return nil
}

// temporary makes a directory, and returns its path from the root: the program may go elsewhere.
func temporary(in, pattern string) (string, error) {
	in, err := filepath.Abs(in)
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(in, pattern)
}

// ending returns the signals that end a process, without those that this one ignores, as SIGHUP under nohup: the program is to ignore them too. Go
// keeps that of SIGHUP and SIGINT.
func ending() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.Signal(1), syscall.Signal(3)} // SIGHUP and SIGQUIT, names that not all systems have
	return slices.DeleteFunc(all, signal.Ignored)
}

// untilEnding returns a context that is cancelled by a signal that ends a process.
func untilEnding() (ctx context.Context, stop func()) {
	signals := ending()
	if len(signals) == 0 { // which would be all
		return context.WithCancel(context.Background())
	}
	return signal.NotifyContext(context.Background(), signals...)
}

// errNothing is wrapped by the error of a program that has recorded nothing.
var errNothing = errors.New("nothing was recorded")

// A source is a file of a recorder.
type source struct{ pid, program int }

// write writes the recordings of the files in dir, and says on errOut what they are. The program has ended as state says.
func (o *recordOptions) write(ctx context.Context, dir string, state *os.ProcessState, program string, errOut io.Writer) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var sources []source
	for _, e := range entries {
		of, n, _ := strings.Cut(e.Name(), ".")
		s := source{program: -1}
		s.pid, _ = strconv.Atoi(of)
		if s.program, err = strconv.Atoi(n); err == nil {
			sources = append(sources, s)
		}
	}
	slices.SortFunc(sources, func(a, b source) int { return cmp.Or(cmp.Compare(a.pid, b.pid), cmp.Compare(a.program, b.program)) })
	var problems []error
	last := -1 // what the process was at last
	for i, s := range sources {
		if s.pid == state.Pid() {
			last = i
		}
	}
	if last < 0 {
		problems = append(problems, fmt.Errorf("%w: %s has not called malloc, or it is a static program, one of another architecture, one that has its own malloc inside, or one that gets other rights, changes its user or may write no files, or $TMPDIR is mounted noexec: only a malloc of a shared library can be recorded", errNothing, program))
	}
	modules := make(preload.Modules) // of some thousand children many are of the same
	for i, s := range sources {
		to := o.to
		if i != last {
			if !o.children {
				continue // the process has executed another program
			}
			if to = fmt.Sprintf("%s.%d", to, s.pid); s.program > 0 {
				to += fmt.Sprintf(".%d", s.program)
			}
		}
		exited, err := o.writeOne(ctx, filepath.Join(dir, fmt.Sprintf("%d.%d", s.pid, s.program)), to, modules, errOut)
		if err != nil {
			problems = append(problems, err)
		} else if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.pid)); err == nil && !exited && (i+1 == len(sources) || sources[i+1].pid != s.pid) {
			fmt.Fprintf(errOut, "alloctrace: record: process %d still runs: what it does from now on is not recorded\n", s.pid)
		} else if i == last && !exited && state.Exited() {
			fmt.Fprintln(errOut, "alloctrace: record: it has not called exit: it has called _exit, or executed another program, which could not be recorded")
		}
	}
	return errors.Join(problems...)
}

// writeOne writes a recording, and reports whether the process has called exit.
func (o *recordOptions) writeOne(ctx context.Context, from, to string, modules preload.Modules, errOut io.Writer) (exited bool, err error) {
	f, err := preload.Open(from)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if isTerminal(errOut) {
		f.Progress = progress(errOut)
	}
	var sum converted
	var damage error
	err = writeFile(to, nil, func(w io.Writer) error {
		sum, damage = convert(ctx, w, f, modules, o.threads)
		if errors.Is(damage, preload.ErrFormat) { // what came before is whole
			return nil
		}
		return damage
	})
	if err != nil {
		return false, err
	}
	fmt.Fprintf(errOut, "alloctrace: record: %s has %s of %s, process %d; live at the end are %s in %s, at the peak %s\n", to, number(sum.events, "event"), line(f.Program), f.PID,
		counter.FormatBytes(sum.bytes), number(sum.blocks, "block"), counter.FormatBytes(sum.peak))
	if f.Resident > 0 {
		fmt.Fprintf(errOut, "alloctrace: record: at most %s of the process were resident\n", counter.FormatBytes(f.Resident))
	}
	if sum.lost > 0 {
		damage = errors.Join(damage, fmt.Errorf("%s: %s lost: there was no room (see -limit), the process could not open its file any more, or it ended while threads recorded", to, were(sum.lost, "event")))
	}
	return f.Resident > 0, damage
}

// exitStatus returns what a shell would say of a process that has ended.
func exitStatus(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}
