package blockalloc

import "golang.org/x/sys/unix"

func noDump(mem []byte) error { return unix.Madvise(mem, unix.MADV_NOCORE) }
