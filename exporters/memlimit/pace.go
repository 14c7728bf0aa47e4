package memlimit

import "math"

// minHeap is the heap goal below which the runtime does not go at GOGC=100. It is proportional
// to the percentage: see heapMinimum in runtime/mgcpacer.go.
const minHeap = 4 << 20

// heap is what the runtime paces by, in bytes: its goal for the heap is, of these,
//
//	max(live + (live + roots)*percent/100, minHeap*percent/100)
//
// as long as there is no lower one from the memory limit.
type heap struct {
	live  int64 // marked by the last collection
	roots int64 // stacks and globals, which the last collection scanned
}

// goal is what the goal is at percent, which is not negative.
func (h heap) goal(percent int) int64 {
	growth := float64(percent) / 100
	return bytes(max(float64(h.live)+(float64(h.live)+float64(h.roots))*growth, minHeap*growth))
}

// pacedGoal is what the goal of a heap with offHeap more bytes is at percent, less these bytes. It
// leaves no more than garbage bytes beside what is live.
func (h heap) pacedGoal(percent int, offHeap, garbage int64) int64 {
	with := heap{h.live + min(max(0, offHeap), math.MaxInt64-h.live), h.roots}
	return min(with.goal(percent)-(with.live-h.live), h.live+min(garbage, math.MaxInt64-h.live))
}

// pace is the percentage by which the goal is goal: the highest by which it is no higher. It is
// base at least, and at most what the runtime can take.
func (h heap) pace(base int, goal int64) int {
	percent := float64(goal) * 100 / minHeap
	if paced := float64(h.live) + float64(h.roots); paced > 0 {
		percent = min(percent, float64(goal-h.live)*100/paced)
	}
	return max(base, int(min(percent, math.MaxInt32)))
}

// bytes is f as an int64, or the highest one.
func bytes(f float64) int64 {
	if f >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(f)
}
