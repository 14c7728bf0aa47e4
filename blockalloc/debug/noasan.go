//go:build !(asan && cgo)

package debug

// See asan.go.

func (r *record) poison() {}

func (r *record) unpoison() {}
