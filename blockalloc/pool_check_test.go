package blockalloc

import (
	"fmt"
	"math/bits"
	"unsafe"
)

// What the tests outside the package ask of a Pool's inner parts.

// PoolChunkSize is the largest block that a Pool makes of its own memory, and
// PoolOnHeap says that this memory is the Go heap's.
const (
	PoolChunkSize = uintptr(chunkSize)
	PoolOnHeap    = arenaChunks == 1
)

// PoolForgets is after how long a Pool without demand has forgotten it, and its timer has ended.
const PoolForgets = 3 * demandPeriod

// PoolTicks reports whether p's timer runs.
func PoolTicks(p *Pool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ticking
}

// PoolRunBlocks is how many blocks of a power-of-two size a Pool carves at a time.
func PoolRunBlocks(size uintptr) int { return runBlocks(classShift(size)) }

// PoolChunks counts the chunks of p.
func PoolChunks(p *Pool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.chunks)
}

// CheckPool checks the inner parts of p, which must not be in use.
func CheckPool(p *Pool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := poolCheck{p: p, listed: make(map[*run]bool), current: make(map[*run]int)}
	for shift := minPoolShift; shift <= chunkShift; shift++ {
		if err := c.list(shift); err != nil {
			return err
		}
	}
	for i := range p.shards {
		for class := range p.shards[i].current {
			if r := p.shards[i].current[class].Load(); r != nil {
				c.current[r]++
				if int(r.shift) != class+minPoolShift {
					return fmt.Errorf("shard %d has %v for blocks of %d B", i, r, 1<<(class+minPoolShift))
				}
			}
		}
	}
	for i, chunk := range p.chunks {
		if err := c.chunk(i, chunk); err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
	}
	return c.totals()
}

func (r *run) String() string {
	return fmt.Sprintf("run of %d × %d B, free %x frozen %x clean %x full %v listed %v dissolved %v reported %d, again at %d",
		bits.OnesCount64(r.all), 1<<r.shift, r.free.Load(), r.frozen.Load(), r.clean.Load(), r.full.Load(), r.listed, r.dissolved, r.reported, r.reportAt.Load())
}

type poolCheck struct {
	p        *Pool
	listed   map[*run]bool
	current  map[*run]int
	seen     int
	reported int64
	live     int64
}

// list checks the list of runs that have free blocks and are no shard's current one.
func (c *poolCheck) list(shift int) error {
	var prev *run
	for r := c.p.partial[shift-minPoolShift]; r != nil; r = r.next {
		if c.listed[r] || !r.listed || r.dissolved || int(r.shift) != shift || r.prev != prev {
			return fmt.Errorf("the list for %d B is broken at %v", 1<<shift, r)
		}
		c.listed[r] = true
		prev = r
	}
	return nil
}

func (c *poolCheck) chunk(index int, k *chunk) error {
	p := c.p
	if k.index != index || uintptr(k.base)%chunkSize != 0 || p.table.load(uintptr(k.base)+chunkSize-1) != k {
		return fmt.Errorf("index %d, base %#x, found in the table: %v", k.index, uintptr(k.base), p.table.load(uintptr(k.base)) == k)
	}
	var taken [granules]bool
	for g := 0; g < granules; g++ {
		taken[g] = k.taken[g/64]>>(g%64)&1 != 0
		if taken[g] != (k.runs[g].Load() != nil) {
			return fmt.Errorf("granule %d is taken: %v, and has %v", g, taken[g], k.runs[g].Load())
		}
	}
	largest := -1
	for o := 0; 1<<o <= granules; o++ {
		for g := 0; g < granules; g += 1 << o {
			free := true
			for _, t := range taken[g : g+1<<o] {
				free = free && !t
			}
			if free {
				largest = o
			}
		}
	}
	if int(p.room[index]) != largest {
		return fmt.Errorf("room for 1<<%d granules, by the Pool's word 1<<%d", largest, p.room[index])
	}
	for g := 0; g < granules; g++ {
		r := k.runs[g].Load()
		if r == nil {
			continue
		}
		if err := c.run(k, g, r); err != nil {
			return fmt.Errorf("%w: %v", err, r)
		}
		g += int(r.bytes()/granule) - 1
	}
	return nil
}

func (c *poolCheck) run(k *chunk, g int, r *run) error {
	n := int(r.bytes() / granule)
	for i := g; i < g+n; i++ {
		if k.runs[i].Load() != r {
			return fmt.Errorf("granule %d is not the run's", i)
		}
	}
	end := uintptr(g+n) * granule
	switch free := r.free.Load(); {
	case r.chunk != k || r.pool != c.p || r.base != unsafe.Add(k.base, g*granule) || r.bytes()%granule != 0 || g%n != 0:
		return fmt.Errorf("run %d granules from its chunk's base is out of place", g)
	case bits.OnesCount64(r.all) != runBlocks(int(r.shift)) || free&^r.all != 0 || r.clean.Load()&^r.all != 0:
		return fmt.Errorf("bits without blocks")
	case end > k.committed || k.committed > chunkSize:
		return fmt.Errorf("%d B of the chunk are committed, the run ends at %d", k.committed, end)
	case r.dissolved:
		return fmt.Errorf("run dissolved and still in its place")
	case r.frozen.Load() != 0:
		return fmt.Errorf("blocks still frozen")
	case r.listed != c.listed[r]:
		return fmt.Errorf("run is listed: %v, and says otherwise", c.listed[r])
	case c.current[r] > 1 || c.current[r] == 1 && (r.listed || r.full.Load()):
		return fmt.Errorf("current run of %d shards", c.current[r])
	case r.listed && r.full.Load() || r.full.Load() && free != 0:
		return fmt.Errorf("run said to be full")
	case c.current[r] == 0 && !r.listed && !r.full.Load():
		return fmt.Errorf("run lost: neither current nor listed nor full")
	case r.full.Load() && int(r.taken) != bits.OnesCount64(r.all):
		return fmt.Errorf("%d blocks of a full run were reported as live", r.taken)
	case r.reportAt.Load() == 0: // the Pool ticks, or did when it looked at r last
	case r.reportAt.Load() != r.reported+c.p.step(r):
		return fmt.Errorf("reportAt is not a step from what was reported")
	case r.dirty(free) >= r.reportAt.Load():
		return fmt.Errorf("%d free blocks with memory were not reported", r.dirty(free))
	}
	c.seen++
	c.reported += int64(r.reported) << r.shift
	c.live += int64(r.taken) << r.shift
	return nil
}

func (c *poolCheck) totals() error {
	p := c.p
	chunks := 0
	for _, a := range p.arenas {
		for i, k := range a.chunks {
			chunks++
			if k.arena != a || k.base != unsafe.Add(a.base, i*chunkSize) || k.index >= len(p.chunks) || p.chunks[k.index] != k {
				return fmt.Errorf("arena at %#x: chunk %d is not the Pool's", uintptr(a.base), i)
			}
		}
	}
	switch {
	case chunks != len(p.chunks) || len(p.room) != len(p.chunks):
		return fmt.Errorf("%d chunks in arenas, %d in all, room of %d", chunks, len(p.chunks), len(p.room))
	case c.reported != p.cached || c.live != p.live:
		return fmt.Errorf("runs have reported %d B cached and %d live, the Pool counts %d and %d", c.reported, c.live, p.cached, p.live)
	case !p.ticking && p.peaks != [2]int64{}:
		return fmt.Errorf("peaks of %d B are never forgotten", p.peaks)
	}
	outside := len(c.listed) + len(c.current)
	for _, k := range p.chunks {
		for r := range k.all() {
			if c.listed[r] || c.current[r] > 0 {
				outside--
			}
		}
	}
	if outside != 0 {
		return fmt.Errorf("%d runs are listed or current and in no chunk", outside)
	}
	return nil
}
