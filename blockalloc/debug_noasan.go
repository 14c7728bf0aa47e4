//go:build !(asan && cgo)

package blockalloc

// See debug_asan.go.

func (r *debugBlock) hide() {}

func (r *debugBlock) show() {}
