package guard

// Stats are the figures of an [Allocator], for all views. Bytes are those that were asked for.
type Stats struct {
	Rate       int64 // 0 if nothing is guarded
	Slots      int   // 0 where everything passes through
	LiveBlocks int64 // that are guarded
	LiveBytes  int64
	Guarded    int64 // blocks, ever
	Full       int64 // blocks, ever, that were chosen and passed through: half of the slots had live blocks
	TooLarge   int64 // likewise: no slot is as large
	Reports    int64 // ever

	// Memory is how many bytes guards take beside the blocks: what remains of their pages, and
	// what is kept of each slot. It is at most Options.Memory, or what the fewest slots take.
	Memory int64
}

// Stats returns the present figures. It takes the lock of guarded blocks.
func (a *Allocator) Stats() Stats {
	s := a.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	n := Stats{
		Rate: s.rate.Load(), LiveBlocks: s.live.Load(), LiveBytes: s.liveBytes,
		Guarded: s.guarded, Full: s.full, TooLarge: s.tooLarge, Reports: s.reports.Load(),
		Memory: s.unused,
	}
	for _, c := range s.classes {
		n.Slots += len(c.slots)
	}
	n.Memory += int64(n.Slots) * int64(perSlot)
	return n
}
