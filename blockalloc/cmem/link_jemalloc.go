//go:build cgo && unix && jemalloc

package cmem

// #cgo LDFLAGS: -ljemalloc
import "C"
