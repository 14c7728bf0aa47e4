package page

// NewNodeColumns returns columns without a row.
func NewNodeColumns() NodeColumns {
	return NodeColumns{
		[]int{}, []int64{}, []int64{}, []int64{}, []int64{}, []int64{}, []int64{}, []int64{},
		[]int64{}, []int64{}, []int64{}, []int64{}, []int64{}, []int64{}, []int64{},
	}
}

// Add adds a row.
func (c *NodeColumns) Add(node int, s Stats, limit int64) {
	c.Node = append(c.Node, node)
	for _, column := range []struct {
		to    *[]int64
		value int64
	}{
		{&c.Live, s.Live}, {&c.LiveBlocks, s.LiveBlocks}, {&c.Slack, s.Slack}, {&c.Peak, s.Peak}, {&c.PeakBound, s.PeakBound},
		{&c.Allocated, s.Allocated}, {&c.Freed, s.Freed},
		{&c.Allocations, s.Allocations}, {&c.Reallocations, s.Reallocations}, {&c.Frees, s.Frees},
		{&c.FailedAllocations, s.FailedAllocations}, {&c.FailedReallocations, s.FailedReallocations}, {&c.FailedFrees, s.FailedFrees},
		{&c.Limit, limit},
	} {
		*column.to = append(*column.to, column.value)
	}
}

// NewSiteColumns returns columns without a row, of which those that may be unknown are.
func NewSiteColumns() SiteColumns {
	return SiteColumns{Site: []int{}, Live: []int64{}, LiveBlocks: []int64{}, LiveError: []int64{}, Allocated: []int64{}, AllocatedBlocks: []int64{}}
}

// SiteStats are the numbers of a site that are always known.
type SiteStats struct {
	Live, LiveBlocks, LiveError, Allocated, AllocatedBlocks int64
}

// Add adds a row.
func (c *SiteColumns) Add(site int, s SiteStats) {
	c.Site = append(c.Site, site)
	c.Live, c.LiveBlocks, c.LiveError = append(c.Live, s.Live), append(c.LiveBlocks, s.LiveBlocks), append(c.LiveError, s.LiveError)
	c.Allocated, c.AllocatedBlocks = append(c.Allocated, s.Allocated), append(c.AllocatedBlocks, s.AllocatedBlocks)
}

// MaxNumber is the largest integer up to which a float64, which numbers are in browsers, has all.
const MaxNumber = 1 << 53

// NewBlocks returns columns without a row, with room for n.
func NewBlocks(n int) *Blocks {
	return &Blocks{Addr: make([]int64, 0, n), Size: make([]int64, 0, n), AllocatedUS: make([]int64, 0, n), Site: make([]int, 0, n)}
}
