//go:build !linux

package main

import "os/exec"

// runForeground runs cmd.
func runForeground(cmd *exec.Cmd) error { return cmd.Run() }
