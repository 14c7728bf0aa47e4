package reach

import (
	"bytes"
	"io"
)

const (
	aroundMost = 64 << 20 // bytes before and behind the variables with pointers that are looked at: of those without, the smallest come first
	bufferMost = 1 << 20  // of them, those among which the next one is
	dumpBuffer = 4 << 10  // bytes of the variable through which the runtime has written the dump
	tailLength = 64       // bytes of the end of the dump by which it is found
)

// around takes in the variables of packages that have no pointers, but may have an address in a uintptr. The dump does not have them. Linkers put them
// before and behind those with pointers. What the runtime has written the dump through is one of them: it has the end of the dump, and
// behind that what it had before. That can be of any table.
func (f *finder) around(end []byte) {
	if f.first >= f.last {
		return
	}
	buffer := f.bufferOf(end)
	readAround(f.first, f.last, aroundMost, func(addr uintptr, piece []byte) {
		f.scan(addr, piece, func(place, word uintptr) {
			if place-buffer < dumpBuffer {
				return
			}
			if i := f.find(word); i != none && f.find(place) == none {
				f.note(i, elsewhere)
			}
		})
	})
}

// bufferOf returns where the variable begins through which a dump was written that has this end, 0 if it is not found. The variable begins with so
// many of the last bytes of the dump as it has had since it was written out.
func (f *finder) bufferOf(end []byte) (buffer uintptr) {
	if len(end) < tailLength {
		return 0
	}
	window := make([]byte, 0, 2*dumpBuffer) // what was read last
	readAround(f.first, f.last, bufferMost, func(addr uintptr, piece []byte) {
		if addr < f.first {
			return
		}
		window = append(append(window[:0], window[max(0, len(window)-dumpBuffer):]...), piece...)
		if at := bytes.Index(window, end[len(end)-tailLength:]); at >= 0 {
			at += tailLength
			buffer = addr + uintptr(len(piece)-len(window)) + uintptr(at-commonEnd(window[:at], end))
		}
	})
	return buffer
}

// commonEnd returns how many bytes at the end of a are those at the end of b.
func commonEnd(a, b []byte) (n int) {
	for n < min(len(a), len(b)) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}

// A tail knows the last bytes that were read.
type tail struct {
	from io.Reader
	last []byte
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.from.Read(p)
	joined := append(t.last, p[max(0, n-dumpBuffer):n]...)
	t.last = append(t.last[:0], joined[max(0, len(joined)-dumpBuffer):]...)
	return n, err
}
