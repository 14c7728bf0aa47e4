package blockalloc

import (
	"bytes"
	"runtime"
	"strconv"
	"time"
)

// bubble returns the number of the caller's testing/synctest bubble, 0 if it is in
// none. Go has no function for that. But a bubble's clock has no monotonic reading, and
// the first line of a stack is "goroutine 7 [running, synctest bubble 6]:". Outside a
// bubble it costs a reading of the clock.
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
