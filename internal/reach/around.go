package reach

import (
	"bytes"
	"io"
)

const (
	aroundMost = 1 << 20 // bytes before and behind the variables with pointers that are looked at: the smallest variables come first
	dumpBuffer = 4 << 10 // bytes of the variable through which the runtime has written the dump
	tailLength = 64
)

// around takes in the variables of packages that have no pointers, but may have an address in a uintptr. The dump does not have them. Linkers put them
// before and behind those with pointers. What the runtime has written the dump through is one of them: it has the end of the dump, and
// before that, or behind, what may be of any table.
func (f *finder) around(end []byte) {
	if f.first >= f.last {
		return
	}
	var buffer uintptr // where the end of the dump is
	var last []byte    // of the piece before
	readAround(f.first, f.last, aroundMost, func(addr uintptr, piece []byte) {
		if addr < f.first {
			return
		}
		joined := append(last, piece...)
		if at := bytes.Index(joined, end); at >= 0 && len(end) == tailLength {
			buffer = addr - uintptr(len(last)) + uintptr(at)
		}
		last = append(last[:0], joined[max(0, len(joined)-tailLength):]...)
	})
	readAround(f.first, f.last, aroundMost, func(addr uintptr, piece []byte) {
		f.scan(addr, piece, func(place, word uintptr) {
			if place-(buffer-dumpBuffer) < 2*dumpBuffer {
				return
			}
			if i := f.find(word); i != none && f.find(place) == none {
				f.note(i, elsewhere)
			}
		})
	})
}

// A tail knows the last bytes that were read.
type tail struct {
	from io.Reader
	last []byte
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.from.Read(p)
	joined := append(t.last, p[max(0, n-tailLength):n]...)
	t.last = append(t.last[:0], joined[max(0, len(joined)-tailLength):]...)
	return n, err
}
