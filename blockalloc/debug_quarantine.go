package blockalloc

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// debugQuarantine is the freed blocks whose memory is not to be used again yet.
type debugQuarantine struct {
	blocks   []*debugBlock // the oldest first
	size     int64         // bytes in blocks
	withheld []*debugBlock // that were written to, or that the parent did not take back
}

// add takes r in and returns those that leave, so that there are maxSize bytes in
// maxBlocks blocks at most.
func (q *debugQuarantine) add(r *debugBlock, maxSize int64, maxBlocks int) []*debugBlock {
	size := int64(r.place.Layout.Size)
	if size > maxSize || maxBlocks == 0 {
		return []*debugBlock{r}
	}
	q.blocks = append(q.blocks, r)
	q.size += size
	n := 0
	for q.size > maxSize || len(q.blocks)-n > maxBlocks {
		q.size -= int64(q.blocks[n].place.Layout.Size)
		n++
	}
	leaving := slices.Clone(q.blocks[:n])
	clear(q.blocks[:n])
	q.blocks = q.blocks[n:]
	return leaving
}

// retire takes in a block that was claimed.
func (d *Debug) retire(r *debugBlock) {
	if d.options.ZeroFree {
		clear(r.block.Bytes())
	}
	if r.guarded() && d.options.Quarantine > 0 {
		r.sealed = pages.Seal(r.from.ptr, r.from.size) == nil
	}
	if !r.sealed && !d.options.NoPoison && !d.options.ZeroFree {
		fill(r.block.Bytes(), freedPoison)
	}
	if !r.sealed {
		r.hide()
	}
	d.mu.Lock()
	leaving := d.quarantine.add(r, d.options.Quarantine, d.options.QuarantineBlocks)
	d.mu.Unlock()
	d.dismissThese(leaving)
}

// each calls f with each of blocks. Where f does not return, because the parent panics or
// ends the goroutine, it withholds those that are left.
func (d *Debug) each(blocks []*debugBlock, f func(*debugBlock)) {
	defer func() {
		if len(blocks) > 0 {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.quarantine.withheld = append(d.quarantine.withheld, blocks...)
		}
	}()
	for len(blocks) > 0 {
		r := blocks[0]
		blocks = blocks[1:]
		f(r)
	}
}

// dismissThese does dismiss for each of blocks, and reports whether that gave any back.
func (d *Debug) dismissThese(blocks []*debugBlock) (some bool) {
	d.each(blocks, func(r *debugBlock) { some = d.dismiss(r) || some })
	return some
}

// dismiss gives back a block that leaves the quarantine, and reports whether it did.
func (d *Debug) dismiss(r *debugBlock) bool {
	if report := d.abused("", r, nil); report != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.keep(report)
		d.quarantine.withheld = append(d.quarantine.withheld, r)
		return false
	}
	return d.release(r) == nil
}

// dismissAll gives back the quarantine and reports whether that was any memory.
func (d *Debug) dismissAll() bool {
	d.mu.Lock()
	leaving := d.quarantine.blocks
	d.quarantine.blocks, d.quarantine.size = nil, 0
	d.mu.Unlock()
	return d.dismissThese(leaving)
}

// release gives back a block's memory. If that fails, panics or ends the goroutine, the
// block is withheld. Its record goes first, for once its memory is given back the address
// is somebody else's.
func (d *Debug) release(r *debugBlock) (err error) {
	d.mu.Lock()
	delete(d.blocks, r.place.Addr)
	d.mu.Unlock()
	released := false
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if released {
			d.gone.add(r)
			return
		}
		d.blocks[r.place.Addr] = r
		d.quarantine.withheld = append(d.quarantine.withheld, r)
	}()
	err = d.giveBack(r)
	released = err == nil
	return err
}

// keep remembers what no operation tells its caller of. The caller holds d.mu.
func (d *Debug) keep(err error) {
	if len(d.findings) == maxFindings {
		d.moreFound++
		return
	}
	d.findings = append(d.findings, err)
}

// found returns what was kept. The caller holds d.mu.
func (d *Debug) found() []error {
	errs := slices.Clone(d.findings)
	if d.moreFound > 0 {
		errs = append(errs, fmt.Errorf("blockalloc: Debug: %d more blocks were used after they were freed", d.moreFound))
	}
	return errs
}

// Check looks at all blocks, live and in quarantine, and returns what is wrong with
// them, joined, and what has been found before and is not yet told of by Close. What
// it finds it does not mend. It costs the reading of all canaries and of what is in
// quarantine, and other operations wait meanwhile.
func (d *Debug) Check() error {
	now := d.stack()
	defer d.tell()
	d.gate.RLock()
	defer d.gate.RUnlock()
	return errors.Join(d.check("Check", now)...)
}

// check does Check. The caller holds d.gate.
func (d *Debug) check(op string, now DebugStack) []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.quarantine.blocks[:0]
	for _, r := range d.quarantine.blocks {
		report := d.abused(op, r, now)
		if report == nil {
			kept = append(kept, r)
			continue
		}
		d.keep(report)
		d.quarantine.size -= int64(r.place.Layout.Size)
		d.quarantine.withheld = append(d.quarantine.withheld, r)
	}
	clear(d.quarantine.blocks[len(kept):])
	d.quarantine.blocks = kept
	errs := d.found()
	for _, r := range d.live() {
		if report := d.damaged(op, r, now); report != nil {
			errs = append(errs, report)
		}
	}
	return errs
}

// live returns the live blocks in the order in which they were allocated. The caller
// holds d.mu.
func (d *Debug) live() []*debugBlock {
	var live []*debugBlock
	for _, r := range d.blocks {
		if !r.dead {
			live = append(live, r)
		}
	}
	slices.SortFunc(live, func(a, b *debugBlock) int { return cmp.Compare(a.serial, b.serial) })
	return live
}

// Close gives the quarantine and what was withheld back to the parent, if no block is
// live, and ends allocation. It returns, joined, what was found since Debug was made
// and not told by the operation that found it; another Close returns nil.
//
// If blocks are live, Close returns an error that wraps [ErrLive], says where they
// were allocated, the largest sum first, and also what Check would; the Debug
// stays open. If the parent does not take memory back, Close returns the parent's
// error; another Close tries again.
func (d *Debug) Close() error {
	now := d.stack()
	defer d.tell()
	d.gate.Lock()
	defer d.gate.Unlock()
	errs := d.check("Close", now)
	if d.liveBlocks > 0 {
		errs = append(append([]error{closeError("Debug", d.liveBlocks, uintptr(d.liveBytes))}, d.leaks()...), errs...)
		return errors.Join(errs...)
	}
	d.closed = true
	told := d.found()
	d.findings, d.moreFound = nil, 0
	defer func() {
		if told != nil { // the parent has not returned, and so Close does not
			d.findings = append(told, d.findings...)
		}
	}()
	again := d.takeWithheld()
	d.each(again, func(r *debugBlock) { _ = d.release(r) }) // what fails is withheld
	d.dismissAll()
	d.each(d.takeWithheld(), func(r *debugBlock) {
		if err := d.release(r); err != nil {
			errs = append(errs, fmt.Errorf("blockalloc: Debug.Close: giving back %v: %w: close again", r.place, err))
		}
	})
	told = nil
	return errors.Join(errs...)
}

func (d *Debug) takeWithheld() []*debugBlock {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := d.quarantine.withheld
	d.quarantine.withheld = nil
	return taken
}

// debugHistory is the blocks that were given back last, without pointers to what may
// be the Go heap's by now.
type debugHistory struct {
	blocks []debugBlock // a ring, once it is full
	next   int
}

const maxHistory = 1024

func (h *debugHistory) add(r *debugBlock) {
	old := debugBlock{place: r.place, allocated: r.allocated, freed: r.freed, dead: true, unmapped: r.unmapped || r.guarded()}
	if len(h.blocks) < maxHistory {
		h.blocks = append(h.blocks, old)
		return
	}
	h.blocks[h.next] = old
	h.next = (h.next + 1) % maxHistory
}

// find returns the newest block that match is true of, or nil. It is good until the
// next add.
func (h *debugHistory) find(match func(*debugBlock) bool) *debugBlock {
	n := len(h.blocks)
	for i := range n {
		if r := &h.blocks[(h.next+n-1-i)%n]; match(r) {
			return r
		}
	}
	return nil
}

// findUnmapped returns the newest block in whose mapping addr was, or nil.
func (h *debugHistory) findUnmapped(addr uintptr) *debugBlock {
	return h.find(func(r *debugBlock) bool { return r.unmapped && addr-r.place.Addr < r.place.Layout.Size })
}
