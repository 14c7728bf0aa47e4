package memlimit

import "runtime/metrics"

// collector reads what the runtime says about the garbage collector. It is for one goroutine at a
// time.
type collector struct{ samples []metrics.Sample }

const (
	gcPercent = iota
	gcCycles
	gcLive
	gcStacks
	gcGlobals
	memTotal
	memReleased
	memFree
	memObjects
)

func newCollector() *collector {
	return &collector{[]metrics.Sample{
		gcPercent:   {Name: "/gc/gogc:percent"},
		gcCycles:    {Name: "/gc/cycles/total:gc-cycles"},
		gcLive:      {Name: "/gc/heap/live:bytes"},
		gcStacks:    {Name: "/gc/scan/stack:bytes"},
		gcGlobals:   {Name: "/gc/scan/globals:bytes"},
		memTotal:    {Name: "/memory/classes/total:bytes"},
		memReleased: {Name: "/memory/classes/heap/released:bytes"},
		memFree:     {Name: "/memory/classes/heap/free:bytes"},
		memObjects:  {Name: "/memory/classes/heap/objects:bytes"},
	}}
}

// read brings all figures up to date. It allocates nothing.
func (c *collector) read() { metrics.Read(c.samples) }

func (c *collector) bytes(i int) int64 { return int64(c.samples[i].Value.Uint64()) }

// percent is GOGC, negative if it is off: the runtime has it in 32 bits.
func (c *collector) percent() int { return int(int32(c.samples[gcPercent].Value.Uint64())) }

// cycles is how many collections have ended.
func (c *collector) cycles() int64 { return c.bytes(gcCycles) }

func (c *collector) heap() heap {
	return heap{live: c.bytes(gcLive), roots: c.bytes(gcStacks) + c.bytes(gcGlobals)}
}

// beside is what counts for the memory limit, and neither is an object nor could be one: stacks,
// the runtime's own structures, and what is left over in spans.
func (c *collector) beside() int64 {
	return max(0, c.bytes(memTotal)-c.bytes(memReleased)-c.bytes(memFree)-c.bytes(memObjects))
}
