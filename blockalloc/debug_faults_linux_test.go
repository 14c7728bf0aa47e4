package blockalloc_test

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

var groupSignals = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP}

func init() {
	morePrograms["interrupted"] = func() {
		// The watcher is another program until it ignores these.
		var mask uint64
		for _, s := range groupSignals {
			mask |= 1 << (s - 1)
		}
		for statusOf(blockalloc.WatcherPid(), "SigIgn")&mask != mask {
			runtime.Gosched()
		}
		b := debugMaker(newGuarded(guarded), 64)
		came := make(chan os.Signal, len(groupSignals))
		for _, s := range groupSignals {
			signal.Notify(came, s)
		}
		for _, s := range groupSignals {
			if err := syscall.Kill(0, s); err != nil {
				panic(err)
			}
			<-came
		}
		debugReader(b, 64)
	}
	morePrograms["no zombie"] = func() {
		pid := blockalloc.WatcherPid()
		killWatcher()
		for { // until it is waited for
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
				return
			}
			runtime.Gosched()
		}
	}
}

// statusOf returns a mask of /proc/pid/status.
func statusOf(pid int, field string) uint64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		panic(err)
	}
	_, rest, _ := strings.Cut(string(data), field+":\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		panic(err)
	}
	return mask
}

// TestReportFaultsAfterInterrupts: signals to the process group do not end the
// watcher, which reports what comes after them.
func TestReportFaultsAfterInterrupts(t *testing.T) {
	cmd, out := faultProgram(t, "interrupted")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Logf("emulated: this program cannot start itself: %v", err)
		return
	}
	if err := cmd.Wait(); err == nil || !strings.HasPrefix(reportIn(out.String()), "access past the end of a block: at byte 64 ") {
		t.Errorf("%v: there is no report in\n%s", err, out)
	}
}

// TestReportFaultsLeavesNoZombie: a watcher that is killed is waited for.
func TestReportFaultsLeavesNoZombie(t *testing.T) {
	stderr, err, ok := runFaultProgram(t, "no zombie")
	if ok && (err != nil || stderr != "") {
		t.Errorf("%v\n%s", err, stderr)
	}
}
