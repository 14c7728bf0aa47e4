package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// A terminal runs the program, and has its screen.
type terminal struct {
	t      *testing.T
	pty    *os.File
	screen *vt.SafeEmulator
	cmd    *exec.Cmd
}

func newTerminal(t *testing.T, columns, rows int, environment []string, args ...string) *terminal {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8", argsVariable+"="+strings.Join(args, "\n"))
	cmd.Env = append(cmd.Env, environment...)
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t, f, vt.NewSafeEmulator(columns, rows), cmd}
	go func() { _, _ = io.Copy(term.screen, f) }() // until the program ends
	go func() { _, _ = io.Copy(f, term.screen) }() // what the terminal answers
	t.Cleanup(func() {
		f.Close()
		if pipe, ok := term.screen.InputPipe().(io.Closer); ok { // Close of the screen races with its Read
			pipe.Close()
		}
	})
	return term
}

func (term *terminal) text() string { return ansi.Strip(term.screen.Render()) }

// await waits until the screen has all of some texts.
func (term *terminal) await(texts ...string) {
	term.t.Helper()
	missing := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		missing = ""
		screen := term.text()
		for _, s := range texts {
			if !strings.Contains(screen, s) {
				missing = s
			}
		}
		if missing == "" {
			return
		}
	}
	term.t.Fatalf("there is no %q on\n%s", missing, term.text())
}

func (term *terminal) press(keys string) {
	term.t.Helper()
	if _, err := io.WriteString(term.pty, keys); err != nil {
		term.t.Fatal(err)
	}
}

// TestMonitorInTerminal: in a terminal top shows a program as it changes, does what keys are for, outlives the server and leaves.
func TestMonitorInTerminal(t *testing.T) {
	page, at := newFakePage(t)
	term := newTerminal(t, 120, 12, nil, "top", "-interval", "100ms", at)
	term.await("server, process 4711", "live 3 KiB in 3 blocks", "*LIVE", " app/cache", "q leave")
	if !term.screen.IsAltScreen() {
		t.Error("the program does not keep what was on the screen before")
	}
	page.set(func(p *fakePage) { p.live += 1 << 20 })
	term.await("live 1 MiB in", " +1 MiB ", "█")
	term.press("\t")
	term.await("NAME: stack", "cache: cache.(*Cache).load (cache.go:88)", "sites are estimates")
	term.press("c")
	term.await("*CHANGE")
	term.press("\r")
	term.await("  example.com/cache.(*Cache).load (/src/cache.go:88)", "  main.main (/src/main.go:9)")
	var now string
	page.set(func(p *fakePage) { p.stopped, now = true, time.Unix(p.at, 0).UTC().Format(" 15:04:05.000 UTC") })
	term.await(now)
	term.press("\x1b[A\r\tlm")
	term.await("*LIVE", "change since 0s ago", "       0 B ")
	page.set(func(p *fakePage) { p.stopped, p.live, p.nodes = false, p.live+1<<21, 4 })
	term.await(" +2 MiB ", " app/new")

	if err := pty.Setsize(term.pty, &pty.Winsize{Cols: 40, Rows: 8}); err != nil {
		t.Fatal(err)
	}
	term.screen.Resize(40, 8)
	term.await("\nq leave  tab sites/children  l c a b p f")
	if screen := term.text(); strings.Contains(screen, "FAILED") {
		t.Errorf("after it was made narrow:\n%s", screen)
	}
	term.press("q")
	if err := term.cmd.Wait(); err != nil {
		t.Errorf("q: %v", err)
	}
}

// TestMonitorWithoutServer: that a program is gone is on the screen, until it is there again.
func TestMonitorWithoutServer(t *testing.T) {
	page := &fakePage{id: "a", live: 1024, nodes: 3}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	serve := func(l net.Listener) *http.Server {
		s := &http.Server{Handler: page}
		go func() { _ = s.Serve(l) }() // until it is closed
		return s
	}
	s := serve(l)
	term := newTerminal(t, 100, 12, []string{"LC_ALL=C", "NO_COLOR=1"}, "top", "-interval", "100ms", "http://"+addr+"/debug/alloctrace/")
	term.await("live 3 KiB in 3 blocks", ` app/cafe? ??\n`)
	s.Close()
	term.await("no answer (", "): dial tcp "+addr+": connect: connection refused")
	page.set(func(p *fakePage) { p.id, p.live = "b", 2048 })
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Skipf("another program has taken the port: %v", err)
	}
	defer serve(l).Close()
	term.await("the program was started anew", "live 4 KiB in 3 blocks")
	term.press("\x03") // ctrl+c
	if err := term.cmd.Wait(); err != nil {
		t.Errorf("ctrl+c: %v", err)
	}
}
