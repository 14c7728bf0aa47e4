//go:build cgo && unix && mimalloc

package cmem

// #cgo LDFLAGS: -lmimalloc
import "C"
