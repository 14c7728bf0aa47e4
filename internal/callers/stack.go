package callers

import "runtime"

// Stack fills pcs with the return addresses of the caller's stack, from the caller's
// own on outwards, for [Frames] and [runtime.CallersFrames], and returns how many
// there are.
//
// On amd64 and arm64 it follows the frame pointers, as the Go runtime does for its own
// profiles of locks: a nanosecond or two a frame, where [runtime.Callers] takes some
// forty. A function that was inlined has no address of its own then, and CallersFrames
// finds it none the less. The walk never leaves the goroutine's stack: where C code
// called Go, which need not keep frame pointers, it ends or has an address too many.
func Stack(pcs []uintptr) int {
	if follows {
		return follow(pcs)
	}
	return runtime.Callers(2, pcs)
}

// FollowsFramePointers reports whether [Stack] does that in this program.
func FollowsFramePointers() bool { return follows }

// follows is whether frame pointers lead to the same functions as runtime.Callers.
var follows = canFollow && agree()

// agree compares both ways.
//
//go:noinline
func agree() bool {
	var followed, called [8]uintptr
	return deeper(followed[:], follow) == deeper(called[:], func(pcs []uintptr) int { return runtime.Callers(2, pcs) })
}

// deeper returns the names of those who call it, by what stack finds.
//
//go:noinline
func deeper(pcs []uintptr, stack func([]uintptr) int) (names string) {
	frames := runtime.CallersFrames(pcs[:stack(pcs)])
	for range 3 {
		f, _ := frames.Next()
		names += f.Function + " "
	}
	return names
}
