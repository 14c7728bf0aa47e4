package blockalloc_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// TestSystemFailedUnmap: if the kernel does not take memory back, the operation fails
// and loses nothing. The kernel never takes back a sealed mapping, so that two pages
// stay until the process ends.
func TestSystemFailedUnmap(t *testing.T) {
	page := uintptr(os.Getpagesize())
	var s blockalloc.System
	b, err := s.Allocate(blockalloc.Layout{Size: 2 * page, Align: page})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_MSEAL, b.Addr(), b.Size(), 0); errno != 0 {
		t.Logf("mappings cannot be sealed here, which takes Linux 6.10 with 64 bits: mseal: %v", errno)
		if err := s.Free(b); err != nil {
			t.Error(err)
		}
		return
	}
	content := bytes.Repeat([]byte{7}, int(b.Size()))
	copy(b.Bytes(), content)
	kept := func(operation string, n blockalloc.Block, err error) {
		t.Helper()
		if !errors.Is(err, unix.EPERM) || n != b {
			t.Errorf("%s = %v, %v; want %v and EPERM", operation, n, err, b)
		}
		if !s.Owns(b) || !bytes.Equal(b.Bytes(), content) {
			t.Errorf("after %s failed the block is lost: owned %t", operation, s.Owns(b))
		}
	}
	for range 2 { // it stays so
		kept("Free", b, s.Free(b))
		n, err := s.Reallocate(b, page)
		kept("Reallocate to one page", n, err)
		n, err = s.Reallocate(b, 0)
		kept("Reallocate to zero", n, err)
	}
	before := virtualAtStart(t)
	for range 256 {
		n, err := s.Reallocate(b, 1<<20)
		kept("Reallocate to 1 MiB", n, err)
	}
	if grown := measure.Virtual(t) - before; grown > runtimeMaps {
		t.Errorf("256 failed reallocations to 1 MiB grew the process by %d bytes", grown)
	}
}
