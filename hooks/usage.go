package hooks

import "time"

// Usage is what a hook has done since it was made, and what it takes.
//
// Bytes is the sum of the sizes of what the hook holds. It leaves out what the Go heap rounds them
// up by, an eighth at most for most sizes, and the free places of Go maps: the heap grows by
// up to a quarter more. It leaves out the stack of a hook's goroutine too.
type Usage struct {
	Events    int64         // observed; 0 if nobody counts them: see Meter
	Sampled   int64         // blocks or events that the hook has kept, or has delivered to another
	Dropped   int64         // blocks or events that it could not keep, or not deliver
	Bytes     int64         // on the Go heap that it holds now
	Time      time.Duration // for which those who allocate have waited for it; 0 unless a Meter measures it
	TimeError time.Duration // the standard error of Time, which is an estimate
}

// A UsageSource is a hook that reports its [Usage], which costs some microseconds.
type UsageSource interface{ Usage() Usage }

var _ UsageSource = (*Meter)(nil)
