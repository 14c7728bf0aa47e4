package main

import (
	"iter"
	"unsafe"
)

// A list holds where one word occurs: the numbers of the lines, ascending, a line
// as often as the word is on it. They lie in chunks of an arena, each as the
// difference to the one before, in 7 bits a byte; most take one byte. The last
// 4 bytes of a chunk are the ref of the next, which is twice as large. The zero
// list is empty.
type list struct {
	head ref
	len  int
	last uint64         // the line added last
	tail unsafe.Pointer // where the next byte goes
}

// linkSize is the size of the ref at the end of a chunk.
const linkSize = 4

// add appends line, which is not less than the one before. If it fails, the list
// can only be freed, with its arena.
func (l *list) add(a *arena, line uint64) error {
	delta := line - l.last
	for ; delta >= 0x80; delta >>= 7 {
		if err := l.put(a, byte(delta)|0x80); err != nil {
			return err
		}
	}
	if err := l.put(a, byte(delta)); err != nil {
		return err
	}
	l.last = line
	l.len++
	return nil
}

func (l *list) put(a *arena, b byte) error {
	if l.tail == nil || atLink(l.tail) {
		if err := l.extend(a); err != nil {
			return err
		}
	}
	*(*byte)(l.tail) = b
	l.tail = unsafe.Add(l.tail, 1)
	return nil
}

func (l *list) extend(a *arena) error {
	size := uint32(minChunk)
	if l.tail != nil {
		size = min(2*headerOf(l.tail).chunk, maxChunk)
	}
	chunk, err := a.chunk(size)
	if err != nil {
		return err
	}
	if l.tail == nil {
		l.head = refOf(chunk)
	} else {
		*(*ref)(l.tail) = refOf(chunk)
	}
	l.tail = chunk
	return nil
}

// atLink reports whether p points to the link of its chunk. The chunk's size is
// that of all in its block, and its alignment.
func atLink(p unsafe.Pointer) bool {
	size := uintptr(headerOf(p).chunk)
	return uintptr(p)&(size-1) == size-linkSize
}

// lines returns what was added, in order.
func (l *list) lines(a *arena) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		if l.len == 0 {
			return
		}
		p := a.pointer(l.head)
		var line uint64
		for range l.len {
			for shift := 0; ; shift += 7 {
				if atLink(p) {
					p = a.pointer(*(*ref)(p))
				}
				b := *(*byte)(p)
				p = unsafe.Add(p, 1)
				line += uint64(b&0x7f) << shift
				if b < 0x80 {
					break
				}
			}
			if !yield(line) {
				return
			}
		}
	}
}
