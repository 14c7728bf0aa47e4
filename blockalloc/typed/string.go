package typed

import (
	"strings"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A String is an immutable string in a block of an allocator. It holds no Go pointer
// and takes three words, so that it can be an element of a [Vec] or a field of one.
// Free it before the element goes.
//
// It does not know its allocator and does not keep it alive: keep both, and call
// [String.Free]. It is a value: all copies are the same string, and freeing one frees
// it for all. Only the String that Free was called on notices. Strings cannot be
// compared by ==, which would compare addresses: use [String.Compare].
//
// Make a String with [NewString] or [Buffer.TakeString]. The zero String is empty and
// takes no memory. Several goroutines may read it at once.
type String struct {
	_    [0]func() // no ==
	addr uintptr   // of a block aligned to 1, which begins with the len bytes of the string
	size uintptr   // that was asked for of the block; freedString after Free
	len  int
}

const freedString = ^uintptr(0)

// NewString returns a String with the content of s, a string or bytes, in a block of
// mem. It panics if mem is nil.
func NewString[S ~string | ~[]byte](mem blockalloc.Allocator, s S) (String, error) {
	needAllocator("NewString", mem)
	if len(s) == 0 {
		return String{}, nil
	}
	b, err := mem.Allocate(blockalloc.Layout{Size: uintptr(len(s)), Align: 1})
	if err != nil {
		return String{}, err
	}
	return stringIn(b, copy(b.Bytes(), s)), nil
}

// stringIn returns the String of the first n bytes of b.
func stringIn(b blockalloc.Block, n int) String {
	return String{addr: b.Addr(), size: b.Requested(), len: n}
}

// pointer returns the address of the first byte. The garbage collector need not know
// it: the block stays where it is until it is freed.
func (s *String) pointer() unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&s.addr)) }

// Len returns the length in bytes.
func (s String) Len() int {
	if s.size == freedString {
		panicFreedString()
	}
	return s.len
}

// View returns the content in place. It is valid until the String is freed.
func (s String) View() string { return unsafe.String((*byte)(s.pointer()), s.Len()) }

// String returns a copy on the Go heap.
func (s String) String() string { return strings.Clone(s.View()) }

// Compare returns -1, 0 or +1 if s is less than, equal to or greater than t, byte by
// byte. slices.SortFunc(v.Slice(), typed.String.Compare) sorts a Vec of Strings.
func (s String) Compare(t String) int { return strings.Compare(s.View(), t.View()) }

// Free gives the block back to mem, the allocator that it came from. After it only Free
// may be called, which does nothing.
func (s *String) Free(mem blockalloc.Allocator) error {
	needAllocator("String.Free", mem)
	if s.size != 0 && s.size != freedString {
		b, err := blockalloc.FromRaw(s.pointer(), blockalloc.Layout{Size: s.size, Align: 1})
		if err != nil {
			return err
		}
		if err := mem.Free(b); err != nil {
			return err
		}
	}
	*s = String{size: freedString}
	return nil
}

//go:noinline
func panicFreedString() { panic("blockalloc/typed: use of a String after Free") }
