//go:build gc && !alloctrace_nolinkname && (amd64 || arm64)

package callers

const canFollow = true

// follow fills pcs by following frame pointers, which lie on the stack of this
// goroutine one above the other. It is written in assembly for the stack not to move
// meanwhile.
//
//go:noescape
func follow(pcs []uintptr) int
