package pages

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// MapFile maps the first size bytes of a file, whole pages, shared with all that map or read it: what is written there is in the
// file however the process ends.
func MapFile(f *os.File, size uintptr) (unsafe.Pointer, error) {
	m, err := windows.CreateFileMapping(windows.Handle(f.Fd()), nil, windows.PAGE_READWRITE, uint32(uint64(size)>>32), uint32(size), nil)
	if err != nil {
		return nil, err
	}
	defer windows.CloseHandle(m) // the view keeps it
	addr, err := windows.MapViewOfFile(m, windows.FILE_MAP_READ|windows.FILE_MAP_WRITE, 0, 0, size)
	if err != nil {
		return nil, err
	}
	return pointer(addr), nil
}

// DetachFile does nothing: Windows cannot put other memory in the place of a view while somebody may write there. The view stays
// until the process ends.
func DetachFile(unsafe.Pointer, uintptr) error { return nil }
