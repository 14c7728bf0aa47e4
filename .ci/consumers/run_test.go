package main

import "testing"

// TestRun runs the program, which panics where something is not as it should be.
func TestRun(*testing.T) { main() }
