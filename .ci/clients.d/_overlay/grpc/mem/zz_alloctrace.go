package mem

import (
	"alloctrace.example/clients/memory"
	"github.com/alloctrace/alloctrace/blockalloc/grpcmem"
)

// The file's name is the package's last, so that this comes after the package's own choice. What a Pool must not take back
// panics, and so fails the test.
func init() { defaultBufferPool = grpcmem.New(memory.Default(), grpcmem.Options{}) }
