package hooks

import (
	"runtime/metrics"
	"sync"
	"time"
	"unsafe"
)

// Usage is what a hook has done since it was made, and what it takes.
type Usage struct {
	Events    int64         // that it was told of; 0 if nobody counts them: see Meter
	Sampled   int64         // blocks or events that it has kept, or told another
	Dropped   int64         // blocks or events that it could not keep, or not tell
	Bytes     int64         // on the Go heap that it holds now, a tenth more or less, without its goroutine if it has one
	Time      time.Duration // for which those who allocate have waited for it; 0 unless a Meter measures it
	TimeError time.Duration // the standard error of Time, which is an estimate
}

// A UsageSource is a hook that tells its [Usage], which costs some microseconds.
type UsageSource interface{ Usage() Usage }

var (
	_ UsageSource = (*Ring)(nil)
	_ UsageSource = (*Drainer)(nil)
	_ UsageSource = (*Leaks)(nil)
	_ UsageSource = (*Profile)(nil)
	_ UsageSource = (*Meter)(nil)
)

const (
	heapPage   = 8 << 10
	largeBlock = 32 << 10 // more than this is pages of its own

	wordSize = unsafe.Sizeof(uintptr(0))
)

// sizeClasses are the sizes of the Go heap's smaller blocks, each plus one.
var sizeClasses = sync.OnceValue(func() []float64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs-by-size:bytes"}}
	if metrics.Read(sample); sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return nil
	}
	return sample[0].Value.Float64Histogram().Buckets
})

// granted returns what a block of size bytes takes on the Go heap that has no pointers.
func granted(size uintptr) int64 {
	if size > largeBlock {
		return int64((size + heapPage - 1) / heapPage * heapPage)
	}
	for _, bound := range sizeClasses() {
		if float64(size) < bound && size > 0 {
			return int64(bound) - 1
		}
	}
	return int64(size)
}

// grantedPointers returns the same of a block that has pointers. Between the smallest and the
// large ones these have a word before them, of 8 bytes, that says where.
func grantedPointers(size uintptr) int64 {
	if size > 8*wordSize*wordSize && size <= largeBlock-8 {
		size += 8
	}
	return granted(size)
}

// mapBytes estimates what a map takes that has had so many entries at most, for a map does
// not shrink. The slots of a Go map, with a byte beside each, are two thirds full on average.
func mapBytes[K comparable, V any](most int) int64 {
	slot := unsafe.Sizeof(struct {
		key   K
		value V
	}{})
	return int64(most) * int64(slot+1) * 3 / 2
}
