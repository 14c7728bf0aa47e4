package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/alloctrace/alloctrace/exporters/recording"
)

// recordShell returns a command that records what a shell does with a script, and the path of the recording.
func recordShell(t *testing.T, script string) (cmd *exec.Cmd, to string) {
	t.Helper()
	return recordCommand(t, "/bin/sh", "-c", script)
}

// recordCommand is recordShell of a program and its arguments, none of which has several lines.
func recordCommand(t *testing.T, program ...string) (cmd *exec.Cmd, to string) {
	t.Helper()
	needProgram(t, "cc", "gcc libc6-dev")
	to = filepath.Join(t.TempDir(), "a")
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), argsVariable+"="+strings.Join(append([]string{recordName, "-o", to}, program...), "\n"))
	return cmd, to
}

// wantStatus waits for the end of a command, and opens what it has recorded. Nothing else may be left.
func wantStatus(t *testing.T, cmd *exec.Cmd, to string, want int) {
	t.Helper()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != want {
		t.Errorf("record ends with %v, want the status %d", err, want)
	}
	r, err := recording.Open(to)
	if err != nil {
		t.Error(err)
	} else {
		r.Close()
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(to), ".*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// TestRecordIgnored: signals that are ignored, as under nohup or in the background of a script, are ignored by the program.
func TestRecordIgnored(t *testing.T) {
	cmd, to := recordShell(t, "kill -HUP $$; kill -INT $$; exit 7")
	cmd.Args = []string{"sh", "-c", `trap "" HUP INT; exec "$0"`, cmd.Path}
	cmd.Path = "/bin/sh"
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, cmd, to, 7)
}

// wantLine reads a line.
func wantLine(t *testing.T, from *bufio.Reader, want string) {
	t.Helper()
	if line, err := from.ReadString('\n'); strings.TrimRight(line, "\r\n") != want {
		t.Fatalf("the program says %q (%v), want %q", line, err, want)
	}
}

// TestRecordSignals: what is sent to the command alone is passed on.
func TestRecordSignals(t *testing.T) {
	cmd, to := recordShell(t, "for s in 1 2 3 10 12; do trap \"echo $s\" $s; done; trap 'kill $!; exit 42' 15; sleep 600 & echo ready; while :; do wait; done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a terminal
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	wantLine(t, said, "ready")
	for _, s := range []syscall.Signal{1, 2, 3, 10, 12, 15} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if s != syscall.SIGTERM {
			wantLine(t, said, fmt.Sprint(int(s)))
		}
	}
	wantStatus(t, cmd, to, 42)
}

// TestRecordUnread: where nobody reads what the command says, it writes the recording, and leaves nothing else. The program is ended by that as ever.
func TestRecordUnread(t *testing.T) {
	cmd, to := recordShell(t, "exec >&2; (ls /; exit 3); echo x; exit 4")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	wantStatus(t, cmd, to, 128+int(syscall.SIGPIPE))
}

// TestRecordDaemon: a child that outlives the program is recorded until that has ended, which the command says.
func TestRecordDaemon(t *testing.T) {
	needProgram(t, "cc", "gcc libc6-dev")
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	status, said := runRecord("-children", "-o", filepath.Join(dir, "a"), "/bin/sh", "-c", `exec >/dev/null 2>&1; (exec /bin/sh -c 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 600' "$0") & while ! [ -e "$0" ]; do sleep 0.01; done; while [ "$(readlink /proc/$!/exe)" = "$(readlink /proc/$$/exe)" ]; do sleep 0.01; done`, pid)
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	of := strings.TrimSpace(string(b))
	if err := exec.Command("kill", of).Run(); err != nil {
		t.Error(err)
	}
	if status != whole || strings.Count(said, "still runs") != 1 || !strings.Contains(said, "process "+of+" still runs: what it does from now on is not recorded\n") {
		t.Errorf("it exits with %d and says %q", status, said)
	}
}

// TestRecordKeys: the program gets what is typed in a terminal to end it, once, and what it has done is recorded.
func TestRecordKeys(t *testing.T) {
	needProgram(t, "python3", "python3")
	script := filepath.Join(t.TempDir(), "keys.py") // a shell would lose a signal that comes just as it begins to read
	if err := os.WriteFile(script, []byte(`
import signal, sys
keys = {signal.SIGINT: 1, signal.SIGQUIT: 10}
signal.pthread_sigmask(signal.SIG_BLOCK, keys)
print("ready", flush=True)
n = 0
while n != 11:
    n += keys[signal.sigwait(keys)]
    print("\nn=%d" % n, flush=True)
input()
sys.exit(40 + n + 100 * len(signal.sigpending()))
`), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, to := recordCommand(t, "python3", script)
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	said := bufio.NewReader(terminal)
	wantLine(t, said, "ready")
	for _, c := range [][2]string{{"\x03", "n=1"}, {"\x1c", "n=11"}, {"end\n", ""}} {
		if _, err := io.WriteString(terminal, c[0]); err != nil {
			t.Fatal(err)
		}
		if c[1] != "" {
			_, _ = said.ReadString('\n') // what the terminal shows of the key
			wantLine(t, said, c[1])
		}
	}
	_, _ = io.Copy(io.Discard, said) // ends with an error when nobody has the terminal any more
	wantStatus(t, cmd, to, 51)
}
