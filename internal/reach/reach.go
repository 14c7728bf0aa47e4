// Package reach finds live blocks of memory outside the Go heap that nothing points to any more: neither the objects that Go's collector
// has kept, nor the variables of packages, nor the stacks of goroutines, nor a block that one of these leads to.
//
// Which Go objects are reachable is the collector's own answer: a dump that follows a collection has those which it has kept. In them each
// aligned word counts that is an address in a block, whatever its type, so that an address in a uintptr counts too. So a block that is found to be
// unreachable is so, unless its address is where [Find] does not look: in registers and memory of C, in integers whose bits were changed, at odd
// places of packed structs, in memory that no block of the caller has, or in the variables of a plugin.
package reach

import (
	"context"
	"encoding/binary"
	"io"
	"math/bits"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/heapdump"
	"github.com/alloctrace/alloctrace/internal/hidden"
)

// A Goroutine is one that waits, and alone has the address of a block on its stack.
type Goroutine struct {
	ID        uint64
	Reason    string        // why it waits, as in a stack trace, such as "chan receive"
	Waited    time.Duration // so long at least: as far as collections have seen it
	Stack     []uintptr     // the return addresses, the innermost first, 32 at most
	CreatedAt uintptr       // the address after its go statement
}

// Reached is what [Find] has found of a block.
type Reached struct {
	Yes bool       // something points to it
	By  *Goroutine // nothing else than this one's stack, and blocks that only this one leads to
}

// maxFrames is how many frames of a goroutine are kept.
const maxFrames = 32

// elsewhere is in finder.by for a block to which something points that is not the stack of one waiting goroutine.
const elsewhere = -1

const wordSize = unsafe.Sizeof(uintptr(0))

// Find reads a dump of this program, and says of each block whether something points to it. It reads the memory of those to which something
// does. A block may be freed meanwhile, and its memory be gone. An address may be moved meanwhile from a block that is not read yet to one that
// was. So the memory is read again as long as that finds something, and then quietRounds times, if there are blocks to which nothing points.
func Find(ctx context.Context, dump io.Reader, blocks []Block) ([]Reached, error) {
	end := &tail{from: dump}
	r, err := heapdump.NewReader(end)
	if err != nil {
		return nil, err
	}
	f := &finder{index: newIndex(blocks), by: make([]int, len(blocks)), who: elsewhere, first: ^uintptr(0), tail: none}
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		rec, err := r.Next(f.memory)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		f.record(&rec)
	}
	f.endGoroutine()
	f.around(end.last)
	if err := f.followAgain(ctx); err != nil {
		return nil, err
	}
	return f.result(), nil
}

// quietRounds is how often the memory of blocks is read without finding something new.
const quietRounds = 3

// A finder has what is known while a dump is read.
type finder struct {
	*index
	by  []int // of each block who points to it: 0 for nobody, n for goroutines[n-1] alone, or elsewhere
	who int   // whose memory is read, likewise

	goroutines []Goroutine
	since      []uint64 // of each, in nanoseconds of the runtime's clock
	now        uint64   // at least

	first, last uintptr // between them are the variables of packages that can have pointers

	// Of the goroutine whose frames are read.
	ignored   bool // it is one of the runtime's, or the one that dumps: what is on its stack is left from others
	waits     bool
	goroutine Goroutine
	began     uint64
	noted     bool // a block's address is on its stack

	mark    uint64 // of the object that is read: see hidden.Mark
	overlap bool   // it has memory of blocks
	skipped bool   // it is the runtime's, and has no reference
	page    uint64 // the number of the last page that had an object with pointers
	tail    int    // the block to which the last word of it points, if that is a reference only where the object is not a waiter, or none
}

// record takes in a record once its memory was read.
func (f *finder) record(rec *heapdump.Record) {
	switch rec.Kind {
	case heapdump.Goroutine:
		f.endGoroutine()
		f.now = max(f.now, rec.Since)
		f.ignored = rec.System || rec.Reason == "dumping heap"
		if f.waits = rec.Status == heapdump.Waiting && !f.ignored; f.waits {
			f.goroutine = Goroutine{ID: rec.ID, Reason: rec.Reason, CreatedAt: uintptr(rec.CreatedAt), Stack: f.goroutine.Stack[:0]}
			f.began, f.who = rec.Since, len(f.goroutines)+1
		}
	case heapdump.Frame:
		if f.waits && len(f.goroutine.Stack) < maxFrames {
			f.goroutine.Stack = append(f.goroutine.Stack, uintptr(rec.PC))
		}
	case heapdump.Defer, heapdump.Panic:
	case heapdump.Object:
		if rec.Pointers != 0 {
			f.page = rec.Addr / heapPage
		}
		if f.tail != none && rec.Pointers != waiterPointers {
			f.note(f.tail, elsewhere)
		}
		f.tail = none
	default:
		f.endGoroutine()
	}
}

func (f *finder) endGoroutine() {
	if f.noted {
		f.goroutines, f.since = append(f.goroutines, f.goroutine), append(f.since, f.began)
		f.goroutine.Stack = nil
	}
	f.waits, f.noted, f.who = false, false, elsewhere
}

// memory takes in a piece of memory of the dump.
func (f *finder) memory(rec *heapdump.Record, offset uint64, piece []byte) {
	if offset == 0 {
		if rec.Kind != heapdump.Frame {
			f.endGoroutine()
		}
		f.mark, f.skipped = 0, false
		if rec.Kind == heapdump.Object {
			f.mark, f.skipped = markOf(piece), f.isRuntimes(rec, piece)
		}
		f.overlap = f.overlaps(uintptr(rec.Addr), uintptr(rec.Size))
		if rec.Kind == heapdump.Data || rec.Kind == heapdump.BSS {
			f.first, f.last = min(f.first, uintptr(rec.Addr)), max(f.last, uintptr(rec.Addr+rec.Size))
		}
	}
	if f.mark == hidden.Knows || f.skipped || rec.Kind == heapdump.Frame && f.ignored {
		return
	}
	f.scan(uintptr(rec.Addr+offset), piece, func(place, word uintptr) {
		if f.overlap && f.find(place) != none {
			return // of a block, whose memory counts if something points to it
		}
		i := f.find(word)
		if f.mark == hidden.Holds {
			i = f.held(i, piece, place-uintptr(rec.Addr+offset), word)
		}
		if i == none || isMapping(piece, place-uintptr(rec.Addr+offset)) {
			return
		}
		if rec.Kind == heapdump.Object && uintptr(rec.Size) == waiterPlace && place-uintptr(rec.Addr)+wordSize == waiterPlace {
			f.tail = i
			return
		}
		f.note(i, f.who)
	})
}

// scan calls each with the aligned words of piece, which is what is at addr, that can be addresses in blocks, and where they are.
func (f *finder) scan(addr uintptr, piece []byte, each func(place, word uintptr)) {
	for at := -addr % wordSize; at+wordSize <= uintptr(len(piece)); at += wordSize {
		if word := wordAt(piece, at); f.within(word) {
			each(addr+at, word)
		}
	}
}

func wordAt(piece []byte, at uintptr) uintptr {
	if bits.UintSize == 32 {
		return uintptr(binary.NativeEndian.Uint32(piece[at:]))
	}
	return uintptr(binary.NativeEndian.Uint64(piece[at:]))
}

// markOf returns the hidden.Mark with which an object begins, alone or after the word that the runtime puts before large objects; 0 if it does not.
func markOf(object []byte) uint64 {
	for at := 0; at <= 8 && at+8 <= len(object); at += 8 {
		if mark := binary.NativeEndian.Uint64(object[at:]); mark == hidden.Knows || mark == hidden.Holds {
			return mark
		}
	}
	return 0
}

// held returns the block that begins at word, and is as large as the next word says: i or one that it is in.
func (f *finder) held(i int, piece []byte, at, word uintptr) int {
	if at+2*wordSize > uintptr(len(piece)) {
		return none
	}
	want := Block{word, wordAt(piece, at+wordSize)}
	for i != none && f.blocks[i] != want {
		i = f.outer[i]
	}
	return i
}

// isMapping reports whether the word at a place is of an entry of the table in which packages syscall and x/sys/unix keep the mappings that Mmap has
// made: a map from the address of the last byte to the slice of all.
func isMapping(piece []byte, at uintptr) bool {
	is := func(last uintptr) bool { // the entry begins there
		if last+4*wordSize > uintptr(len(piece)) { // also if it is less than 0
			return false
		}
		size := wordAt(piece, last+2*wordSize)
		return size != 0 && size == wordAt(piece, last+3*wordSize) && wordAt(piece, last) == wordAt(piece, last+wordSize)+size-1
	}
	return is(at) || at >= wordSize && is(at-wordSize)
}

// note says that who points to block i, and so to what that is in.
func (f *finder) note(i, who int) {
	f.noted = f.noted || who > 0
	for ; i != none; i = f.outer[i] {
		f.by[i] = joined(f.by[i], who)
	}
}

// joined returns who leads to a block that two lead to.
func joined(a, b int) int {
	switch {
	case a == 0 || a == b:
		return b
	case b == 0:
		return a
	}
	return elsewhere
}

// followAgain follows as long as that finds something, and then quietRounds times, if there are blocks to which nothing points.
func (f *finder) followAgain(ctx context.Context) error {
	for quiet := 0; ; {
		found, err := f.follow(ctx)
		if quiet++; found {
			quiet = 0
		}
		if err != nil || quiet >= quietRounds || !slices.Contains(f.by, 0) {
			return err
		}
		runtime.Gosched() // who is moving an address, and has it alone, is to go on
	}
}

// follow notes what the blocks point to that something points to, and reports whether that is new.
func (f *finder) follow(ctx context.Context) (found bool, err error) {
	before := slices.Clone(f.by)
	var queue []int
	for i, who := range f.by {
		if who == elsewhere {
			queue = append(queue, i)
		}
	}
	if err := f.followAll(ctx, queue); err != nil {
		return false, err
	}
	queue = queue[:0]
	for i, who := range f.by {
		if who > 0 {
			queue = append(queue, i)
		}
	}
	err = f.followAll(ctx, queue)
	return !slices.Equal(f.by, before), err
}

func (f *finder) followAll(ctx context.Context, queue []int) error {
	for len(queue) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		i := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		who := f.by[i]
		f.own(i, func(addr, size uintptr) {
			read(addr, size, func(addr uintptr, piece []byte) {
				f.scan(addr, piece, func(_, word uintptr) {
					for to := f.find(word); to != none; to = f.outer[to] {
						if all := joined(f.by[to], who); all != f.by[to] {
							f.by[to] = all
							queue = append(queue, to)
						}
					}
				})
			})
		})
	}
	return nil
}

func (f *finder) result() []Reached {
	list := make([]Reached, len(f.by))
	for i, who := range f.by {
		reached := &list[f.place[i]]
		reached.Yes = who != 0
		if who > 0 {
			reached.By = &f.goroutines[who-1]
			if since := f.since[who-1]; since != 0 && since < f.now {
				reached.By.Waited = time.Duration(f.now - since)
			}
		}
	}
	return list
}
