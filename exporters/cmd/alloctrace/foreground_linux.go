package main

import (
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// runForeground runs cmd. Signals that end a process, and those that are for users, are passed on to it. A terminal sends its own to the
// program too, which says what becomes of them. From then on this process is not ended where nobody reads what it says: it has recordings to write.
func runForeground(cmd *exec.Cmd) error {
	if !signal.Ignored(syscall.SIGPIPE) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // writing fails then; the program has the signal as before
	}
	signals := make(chan os.Signal, 8)
	for _, s := range append(ending(), syscall.SIGUSR1, syscall.SIGUSR2) {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				if (s != syscall.SIGINT && s != syscall.SIGQUIT) || !inForeground() {
					_ = cmd.Process.Signal(s)
				}
			case <-ended:
				return
			}
		}
	}()
	return cmd.Wait()
}

// inForeground reports whether the process is one of those to which its terminal sends signals.
func inForeground() bool {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return true
	}
	rest := string(b)
	fields := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:]) // from the state on, which is the third
	return len(fields) > 5 && fields[5] == strconv.Itoa(syscall.Getpgrp())
}
