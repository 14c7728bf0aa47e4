package pages

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// CanRemap reports whether a mapping can move to another address without being copied.
const CanRemap = true

// Extend makes a mapping of old bytes at p larger in place, by pages that are zeroed and are treated
// as the others. The error is ErrOccupied if there may be room elsewhere, for Remap. After
// any other error Remap fails too: the mapping is sealed, or consists of several.
func Extend(p unsafe.Pointer, old, size uintptr) error {
	_, err := unix.MremapPtr(p, old, nil, size, 0)
	switch err {
	case nil:
		return nil
	case unix.ENOMEM:
		return ErrOccupied
	}
	return err
}

// hugePage is what Linux moves at once, and not page by page, if both places are aligned to it.
const hugePage = 2 << 20

// Remap moves a mapping of old bytes at p to a multiple of align and makes it larger, as Extend does. It chooses a
// place with free address space behind, so that the mapping can be extended there. If that fails, the
// mapping is as it was.
func Remap(p unsafe.Pointer, old, size, align uintptr) (unsafe.Pointer, error) {
	added := size - old
	to, err := reserveWithRoom(size, max(RoundUp(size/2, Size), added), added, max(align, hugePage))
	if err != nil && align <= Size { // the kernel finds a place if there is any
		return unix.MremapPtr(p, old, nil, size, unix.MREMAP_MAYMOVE)
	}
	if err != nil {
		to, err = reserveWithRoom(size, added, added, align)
	}
	if err != nil {
		return nil, err
	}
	q, err := unix.MremapPtr(p, old, to, size, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	if err != nil {
		release(to, size)
		return nil, err
	}
	return q, nil
}

// reserveWithRoom reserves size bytes of address space with room bytes behind them that are free. It fails if the process
// may not have as many accessible pages as are to be added, which need not be more than room.
func reserveWithRoom(size, room, added, align uintptr) (unsafe.Pointer, error) {
	p, err := Reserve(size+room, align)
	if err != nil {
		return nil, err
	}
	behind := unsafe.Add(p, size)
	if err = Commit(behind, added); err == nil {
		err = Unmap(behind, room)
	}
	if err != nil {
		_ = Unmap(p, size+room)
		return nil, err
	}
	return p, nil
}

// release gives back address space that was reserved for a mapping that could not be moved there, because other threads
// have taken the last of what reserveWithRoom had found. The kernel may have unmapped it before it
// failed, and another thread may have a mapping there by now. So it is unmapped only if it is
// free, and can be mapped anew. Otherwise it stays reserved, which takes no memory.
func release(p unsafe.Pointer, size uintptr) {
	q, err := unix.MmapPtr(-1, 0, p, size, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_FIXED_NOREPLACE)
	if err == nil {
		_ = Unmap(q, size) // it is elsewhere if the kernel is older than 4.17
	}
}
