package debug

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/alloctrace/alloctrace/internal/pages"
)

const maxFindings = 100

// quarantine is the freed blocks whose memory is not to be reused yet.
type quarantine struct {
	blocks   []*record // the oldest first
	size     int64     // bytes in blocks
	withheld []*record // written to after they were freed, or refused by the parent
}

// add adds r and returns the blocks that leave, so that at most maxSize bytes in
// maxBlocks blocks stay.
func (q *quarantine) add(r *record, maxSize int64, maxBlocks int) []*record {
	size := int64(r.place.Layout.Size)
	if size > maxSize || maxBlocks == 0 {
		return []*record{r}
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

// retire puts a claimed block into the quarantine.
func (d *Allocator) retire(r *record) {
	if d.options.ZeroFree {
		clear(r.block.Bytes())
	}
	if r.guarded() && d.options.Quarantine > 0 {
		r.sealed = pages.Seal(r.from.Pointer(), r.from.Size()) == nil
	}
	if !r.sealed && !d.options.NoPoison && !d.options.ZeroFree {
		fill(r.block.Bytes(), freedPoison)
	}
	if !r.sealed {
		r.poison()
	}
	d.mu.Lock()
	leaving := d.quarantine.add(r, d.options.Quarantine, d.options.QuarantineBlocks)
	d.mu.Unlock()
	d.dismissThese(leaving)
}

// each calls f with each of blocks. If f does not return, because the parent panics or
// ends the goroutine, it withholds the rest.
func (d *Allocator) each(blocks []*record, f func(*record)) {
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

// dismissThese calls dismiss for each of blocks, and reports whether that gave any
// back.
func (d *Allocator) dismissThese(blocks []*record) (some bool) {
	d.each(blocks, func(r *record) { some = d.dismiss(r) || some })
	return some
}

// dismiss gives back a block that leaves the quarantine, and reports whether it did.
func (d *Allocator) dismiss(r *record) bool {
	if report := d.abused("", r, nil); report != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.keep(report)
		d.quarantine.withheld = append(d.quarantine.withheld, r)
		return false
	}
	return d.release(r) == nil
}

// dismissAll gives the quarantine back and reports whether that released memory.
func (d *Allocator) dismissAll() bool {
	d.mu.Lock()
	leaving := d.quarantine.blocks
	d.quarantine.blocks, d.quarantine.size = nil, 0
	d.mu.Unlock()
	return d.dismissThese(leaving)
}

// release gives a block's memory back. If that fails, panics or ends the goroutine, the
// block is withheld. The record is removed first, because the address can be reused
// once the memory is back.
func (d *Allocator) release(r *record) (err error) {
	d.mu.Lock()
	d.remove(r)
	d.mu.Unlock()
	released := false
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if released {
			d.released.add(r)
			return
		}
		d.add(r)
		d.quarantine.withheld = append(d.quarantine.withheld, r)
	}()
	err = d.giveBack(r)
	released = err == nil
	return err
}

// keep keeps an error that no operation returns to its caller. d.mu is held.
func (d *Allocator) keep(err error) {
	if len(d.findings) == maxFindings {
		d.moreFound++
		return
	}
	d.findings = append(d.findings, err)
}

// found returns the kept errors. d.mu is held.
func (d *Allocator) found() []error {
	errs := slices.Clone(d.findings)
	if d.moreFound > 0 {
		errs = append(errs, fmt.Errorf("debug: %d more blocks were used after they were freed", d.moreFound))
	}
	return errs
}

// Check looks at all blocks, live and in quarantine. It returns, joined, what is wrong
// with them, and what was found before and not yet returned by Close. It repairs
// nothing. It reads all canaries and the quarantine; other operations wait meanwhile.
func (d *Allocator) Check() error {
	now := d.stack()
	defer d.deliver()
	d.gate.RLock()
	defer d.gate.RUnlock()
	return errors.Join(d.check("Check", now)...)
}

// check is Check without joining. d.gate is held.
func (d *Allocator) check(op string, now Stack) []error {
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

// live returns the live blocks, in the order of their allocation. d.mu is held.
func (d *Allocator) live() []*record {
	var live []*record
	for _, r := range d.blocks {
		if !r.dead {
			live = append(live, r)
		}
	}
	slices.SortFunc(live, func(a, b *record) int { return cmp.Compare(a.serial, b.serial) })
	return live
}

// Close ends allocation and gives the quarantine and the withheld blocks back to the
// parent. It returns, joined, what was found since New and not returned by the
// operation that found it. Another Close returns nil.
//
// While blocks are live, the Allocator stays open: Close returns an error that wraps
// [blockalloc.ErrLive], says where they were allocated, the largest sum first, and
// includes what Check returns. If the parent refuses memory, Close returns the parent's
// error; another Close tries again.
func (d *Allocator) Close() error {
	now := d.stack()
	defer d.deliver()
	d.gate.Lock()
	defer d.gate.Unlock()
	errs := d.check("Close", now)
	if d.liveBlocks > 0 {
		errs = append(append([]error{closeError(d.liveBlocks, d.liveBytes)}, d.leaks()...), errs...)
		return errors.Join(errs...)
	}
	d.closed = true
	returned := d.found()
	d.findings, d.moreFound = nil, 0
	defer func() {
		if returned != nil { // the parent has not returned, and so Close does not
			d.findings = append(returned, d.findings...)
		}
	}()
	again := d.takeWithheld()
	d.each(again, func(r *record) { _ = d.release(r) }) // what fails is withheld
	d.dismissAll()
	d.each(d.takeWithheld(), func(r *record) {
		if err := d.release(r); err != nil {
			errs = append(errs, fmt.Errorf("debug: Close: giving back %v: %w: close again", r.place, err))
		}
	})
	returned = nil
	return errors.Join(errs...)
}

func (d *Allocator) takeWithheld() []*record {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := d.quarantine.withheld
	d.quarantine.withheld = nil
	return taken
}
