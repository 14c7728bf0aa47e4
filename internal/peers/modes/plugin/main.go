//go:build cgo && linux

// Plugin is built with -buildmode=plugin, and loaded by host.
package main

import (
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/peers/modes/work"
)

// Do is [work.Do] in the plugin.
func Do(c *counter.Counter, n int) error { return work.Do(c, n) }

func main() {}
