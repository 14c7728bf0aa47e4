package blockalloc

import (
	"bytes"
	"runtime"
	"strconv"
	"time"
)

// bubble returns the number of the testing/synctest bubble that the caller is in, 0 if it
// is in none. Go has no function for that: the clock of a bubble has no monotonic reading,
// and the first line of a stack says which it is, as in "goroutine 7 [running, synctest
// bubble 6]:". Outside it costs the reading of the clock.
func bubble() int {
	if now := time.Now(); now != now.Round(0) {
		return 0
	}
	var stack [128]byte
	line, _, _ := bytes.Cut(stack[:runtime.Stack(stack[:], false)], []byte("]:"))
	_, number, _ := bytes.Cut(line, []byte("synctest bubble "))
	n, _ := strconv.Atoi(string(number))
	return n
}
