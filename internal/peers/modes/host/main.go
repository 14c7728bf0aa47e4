//go:build cgo && linux

// Host loads a plugin, which counts in the same Counter as it does itself, and prints the ways.
package main

import (
	"fmt"
	"os"
	"plugin"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/peers/modes/work"
)

const blocks = 5000

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: host PLUGIN")
	}
	loaded, err := plugin.Open(args[0])
	if err != nil {
		return err
	}
	symbol, err := loaded.Lookup("Do")
	if err != nil {
		return err
	}
	do, ok := symbol.(func(*counter.Counter, int) error)
	if !ok {
		return fmt.Errorf("%s: Do is a %T", args[0], symbol)
	}
	var c counter.Counter
	there := make(chan error)
	go func() { there <- do(&c, blocks) }()
	here := work.Do(&c, blocks)
	if err := <-there; err != nil {
		return err
	}
	if here != nil {
		return here
	}
	ways, err := work.Check(&c, 2*4*blocks)
	fmt.Println(ways)
	return err
}
