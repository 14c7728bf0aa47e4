package blackbox

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// Open reads the file at path. It is an error if that is no black box, or its header cannot be used; what else is damaged or missing
// is in Contents.Damage, and the rest is read.
//
// The process may run still: then the last events of some processors may be missing. A file is read twice, for that which is
// written meanwhile not to be mixed up.
func Open(path string) (*Contents, error) {
	first, err := readFile(path)
	if err == nil {
		var second []byte
		if second, err = readFile(path); err == nil {
			var c *Contents
			if c, err = parse(first, second); err == nil {
				return c, nil
			}
		}
	}
	return nil, fmt.Errorf("blackbox: Open(%q): %w", path, err)
}

// readFile returns the file, and of a larger one than any black box the begin.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var content bytes.Buffer
	if is, err := f.Stat(); err == nil {
		content.Grow(int(min(is.Size(), maxSize)) + bytes.MinRead)
	}
	if _, err := content.ReadFrom(io.LimitReader(f, maxSize)); err != nil {
		return nil, err
	}
	return content.Bytes(), nil
}

// A reader reads what a file has, of which the second reading may have later content.
type reader struct {
	layout
	first, second []byte
	contents      *Contents
	names         []string
	overflowed    map[uint64]Event // by their numbers
}

// parse reads the contents of a file from its first and second reading.
func parse(first, second []byte) (*Contents, error) {
	l, whole, err := parseHeader(second)
	if err != nil {
		return nil, err
	}
	r := &reader{layout: l, first: first, second: second, contents: &Contents{PID: int(l.pid), Created: timeOf(l.created)}}
	if !whole {
		r.damaged("the checksum of the header is wrong")
	}
	if have := uint64(len(second)); have < l.size {
		r.damaged("the file has %d of its %d bytes", have, l.size)
	}
	r.contents.Closed = timeOf(order.Uint64(second[closedAt:]))
	r.readTables()
	r.readNames()
	r.readOverflows()
	r.readEvents()
	return r.contents, nil
}

func (r *reader) damaged(format string, args ...any) {
	const most = 20 // sentences
	if n := len(r.contents.Damage); n < most {
		r.contents.Damage = append(r.contents.Damage, fmt.Sprintf(format, args...))
	} else if n == most {
		r.contents.Damage = append(r.contents.Damage, "and more")
	}
}

// part returns n bytes at an offset of b, or as many of them as there are.
func part(b []byte, at, n uint64) []byte {
	b = b[min(at, uint64(len(b))):]
	return b[:min(n, uint64(len(b)))]
}
