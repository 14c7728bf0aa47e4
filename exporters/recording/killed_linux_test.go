package recording_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/internal/process"
)

// beRecorded has the test binary be a program that is recorded: what it does, and the path.
const beRecorded = "RECORDING_TEST_BE_RECORDED"

func TestMain(m *testing.M) {
	var what, path string
	if _, err := fmt.Sscan(os.Getenv(beRecorded), &what, &path); err == nil {
		if err := beProgram(what, path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func beProgram(what, path string) error {
	rec, err := recording.Create(path, recording.Options{})
	if err != nil {
		return err
	}
	p := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithHooks(rec))
	pairs := func(n int) error {
		for i := range n {
			b, err := p.Allocate(blockalloc.Layout{Size: uintptr(1 + i%1000), Align: 8})
			if err == nil {
				err = p.Free(b)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if what == "full" {
		return beFull(rec, pairs)
	}
	for n := 0; ; n += 100 {
		if err := pairs(50); err != nil {
			return err
		}
		if err := rec.Flush(); err != nil {
			return err
		}
		fmt.Println(n + 100) // these events are there, whatever happens
	}
}

// beFull is refused to write more to a file, goes on, and later may write again.
func beFull(rec *recording.Recorder, pairs func(int) error) error {
	signal.Ignore(syscall.SIGXFSZ)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	if err := errors.Join(pairs(100), rec.Flush()); err != nil {
		return err
	}
	small := was
	small.Cur = 6 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		return err
	}
	refused := 0
	for range 200 {
		if err := pairs(100); err != nil {
			return err
		}
		if err := rec.Flush(); errors.Is(err, syscall.EFBIG) {
			refused++
		} else if err != nil {
			return err
		}
	}
	if refused == 0 {
		return errors.New("all could be written")
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	if err := errors.Join(pairs(100), rec.Flush()); err != nil {
		return err
	}
	if err := rec.Close(); !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("Close returned %v", err)
	}
	u := rec.Usage()
	fmt.Println(u.Sampled, u.Dropped)
	return nil
}

func program(t *testing.T, what, path string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), beRecorded+"="+what+" "+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// readAll returns how many events a file has, and how many it says were dropped.
func readAll(t *testing.T, path string) (events, dropped int64, ended bool, err error) {
	t.Helper()
	r, err := recording.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := history{live: make(map[uintptr]uintptr)}
	for e, err := range r.Events() {
		if err != nil {
			return events, dropped, false, err
		}
		if dropped += e.Dropped; e.Dropped > 0 {
			clear(h.live) // its release may be missing
			continue
		}
		if err := h.add(e); err != nil && dropped == 0 {
			t.Fatal(err)
		}
		events++
	}
	return events, dropped, r.Ended(), nil
}

// TestKilled: of a program that is killed at any time, all that was flushed can be read, and nothing that did not happen.
func TestKilled(t *testing.T) {
	if !process.CanStart(t) {
		return
	}
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	for round := range rounds {
		path := filepath.Join(dir, fmt.Sprint(round))
		cmd := program(t, "storm", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var flushed int64
		time.AfterFunc(time.Duration(rand.IntN(200))*time.Millisecond, func() {
			// Not before it has begun, which takes as long as it takes.
			for range 600 {
				if fi, err := os.Stat(path); err == nil && fi.Size() > 0 {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			_ = cmd.Process.Kill()
		})
		for lines.Scan() {
			fmt.Sscan(lines.Text(), &flushed)
		}
		_ = cmd.Wait()
		events, dropped, ended, err := readAll(t, path)
		var damaged *recording.DamagedError
		if err != nil && (!errors.As(err, &damaged) || !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("round %d: %v", round, err)
		}
		if events+dropped < flushed || events+dropped > flushed+200 || ended {
			t.Errorf("round %d: %d events and %d dropped, and %d were flushed; ended: %t, %v", round, events, dropped, flushed, ended, err)
		}
	}
}

// TestFull: a file that can be written no more costs the events meanwhile, which are counted, and no others.
func TestFull(t *testing.T) {
	if !process.CanStart(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "a")
	out, err := program(t, "full", path).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var sampled, lost int64
	if _, err := fmt.Sscan(string(out), &sampled, &lost); err != nil {
		t.Fatal(err)
	}
	events, dropped, ended, err := readAll(t, path)
	if err != nil || !ended || events != sampled || dropped != lost || events+dropped != 2*(100+20_000+100) || dropped == 0 {
		t.Errorf("%d events and %d dropped, want %d and %d; ended: %t, %v", events, dropped, sampled, lost, ended, err)
	}
}
