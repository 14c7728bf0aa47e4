package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// The purposes of memory.
const (
	forPages    = "cache"    // the content of pages
	forIndex    = "index"    // which page is where
	forMemtable = "memtable" // writes to pages that are not in memory
)

// A memory returns the allocator for a purpose, in a context. All of them share one blockalloc.Limit.
type memory func(ctx context.Context, purpose string) blockalloc.Allocator

// maxPending is how many pages a shard's memtable holds before it is merged.
const maxPending = 256

// A cache keeps pages of a file in memory, as many as its limit allows. To read or write one, it is pinned; the others can
// be evicted, by CLOCK, and those that were changed are written back before. A write to a page that is not in memory does not
// read it: it waits in a memtable until the page is read for another reason, or the memtable is full.
//
// Several goroutines may use a cache at once, each by a session of its own.
type cache struct {
	file     pages
	pageSize uintptr
	ctx      context.Context // that of the index and the memtables, which outlive any session
	mem      memory
	shards   [16]shard
	next     atomic.Uint64 // the shard that is the next to evict from
	resident atomic.Int64  // blocks of frames
	room     room
}

// newCache returns a cache of the pages of a file, each of pageSize bytes, a power of two.
func newCache(ctx context.Context, file pages, pageSize uintptr, mem memory) *cache {
	c := &cache{file: file, pageSize: pageSize, ctx: ctx, mem: mem}
	for i := range c.shards {
		c.shards[i].room = &c.room
		c.shards[i].slots = c.newTable(forIndex)
		c.shards[i].pending = c.newTable(forMemtable)
	}
	return c
}

// newTable returns a map by page, without memory yet.
func (c *cache) newTable(purpose string) *typed.Map[uint32, uint32] {
	return typed.NewMapFunc[uint32, uint32](c.mem(c.ctx, purpose), hash)
}

func hash(page uint32) uint64 { return uint64(page) * 0x9e3779b97f4a7c15 }

func (c *cache) shardOf(page uint32) *shard { return &c.shards[hash(page)>>60] }

// A session is what one goroutine does with a cache in a context. Pages that it brings into memory and evicts are counted
// in the regions of that.
type session struct {
	*cache
	ctx context.Context
	mem blockalloc.Allocator // of pages
}

func (c *cache) in(ctx context.Context) *session { return &session{c, ctx, c.mem(ctx, forPages)} }

// pin returns the frame of a page, which stays in memory until unpin. It may still be on its way from the file: take the
// latch, and look at err.
func (s *session) pin(page uint32) (f *frame, err error) {
	if f = s.shardOf(page).find(page); f != nil {
		return f, nil
	}
	err = s.withRoom(func() error {
		f, err = s.bring(page)
		return err
	})
	return f, err
}

// bring pins the frame of a page that was not in memory.
func (s *session) bring(page uint32) (*frame, error) {
	b, err := s.mem.Allocate(blockalloc.BlockLayout(s.pageSize))
	if err != nil {
		return nil, err
	}
	s.resident.Add(1)
	f := &frame{page: page, block: b, pins: 1, referenced: true}
	f.latch.Lock()
	defer f.latch.Unlock()
	shard := s.shardOf(page)
	if in, err := shard.insert(f); in != f { // another goroutine was first, or there is no room in the index
		return in, errors.Join(err, s.free(f))
	}
	if err := s.load(shard, f); err != nil {
		shard.mu.Lock()
		f.err = err
		shard.remove(f)
		shard.mu.Unlock()
	}
	return f, nil
}

// load reads f, and merges the writes that have waited for it. The latch is held.
func (s *session) load(shard *shard, f *frame) error {
	b := f.bytes()
	if err := s.file.readPage(f.page, b); err != nil {
		return err
	}
	generation, err := generationOf(b, f.page)
	if err != nil {
		return err
	}
	shard.mu.Lock()
	writes, _ := shard.pending.Get(f.page)
	if writes > 0 {
		shard.pending.Delete(f.page)
		shard.stats.Merged += int64(writes)
		f.dirty = true
	}
	shard.mu.Unlock()
	if writes > 0 {
		fill(b, f.page, generation+writes)
	}
	return nil
}

// unpin ends the use of a frame.
func (s *session) unpin(f *frame, dirty bool) error {
	if s.shardOf(f.page).unpin(f, dirty) {
		return s.free(f)
	}
	return nil
}

// read calls visit with a page, which nobody changes meanwhile.
func (s *session) read(page uint32, visit func(b []byte) error) error {
	f, err := s.pin(page)
	if err != nil {
		return err
	}
	f.latch.RLock()
	if err = f.err; err == nil {
		err = visit(f.bytes())
	}
	f.latch.RUnlock()
	return errors.Join(err, s.unpin(f, false))
}

// write makes the next generation of a page. It calls written before anybody can see that.
func (s *session) write(page uint32, written func()) error {
	shard := s.shardOf(page)
	var f *frame
	full := false
	if err := s.withRoom(func() (err error) {
		f, full, err = shard.buffer(page, written)
		return err
	}); err != nil {
		return err
	}
	if f != nil {
		f.latch.Lock()
		err := f.err
		if err == nil {
			err = next(f.bytes(), page)
		}
		if err == nil {
			written()
		}
		f.latch.Unlock()
		return errors.Join(err, s.unpin(f, err == nil))
	}
	if full {
		return s.merge(shard)
	}
	return nil
}

func next(b []byte, page uint32) error {
	generation, err := generationOf(b, page)
	if err != nil {
		return err
	}
	fill(b, page, generation+1)
	return nil
}

// buffer pins the frame of a page if it is in memory. Otherwise it keeps the write in the memtable, and reports whether
// that is full and the caller's to merge.
func (s *shard) buffer(page uint32, written func()) (f *frame, full bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f = s.pin(page); f != nil {
		return f, false, nil
	}
	writes, _, err := s.pending.Ensure(page)
	if err != nil {
		return nil, false, err
	}
	*writes++
	written()
	s.stats.Buffered++
	full = s.pending.Len() >= maxPending && !s.merging
	s.merging = s.merging || full
	return nil, full, nil
}

// merge brings the writes of a memtable to their pages, and frees it unless there are others by then.
func (s *session) merge(shard *shard) (err error) {
	shard.mu.Lock()
	waiting := make([]uint32, 0, shard.pending.Len())
	for page := range shard.pending.Keys() {
		waiting = append(waiting, page)
	}
	shard.mu.Unlock()
	for _, page := range waiting {
		if err = s.read(page, func([]byte) error { return nil }); err != nil {
			break
		}
	}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	shard.merging = false
	if shard.pending.Len() == 0 {
		err = errors.Join(err, shard.pending.Free())
		shard.pending = s.newTable(forMemtable)
		s.room.signal()
	}
	return err
}

// flush brings all writes to the file.
func (s *session) flush() error {
	for i := range s.shards {
		shard := &s.shards[i]
		if err := s.merge(shard); err != nil {
			return err
		}
		shard.mu.Lock()
		var err error
		for slot := 0; slot < len(shard.frames); slot++ {
			if f := shard.frames[slot]; f != nil && f.dirty {
				err = errors.Join(err, shard.writeBack(f, s.file))
			}
		}
		shard.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// close flushes, and frees all memory but that of pages that are pinned: that is an error. Nobody else uses the cache.
func (s *session) close() error {
	err := s.flush()
	pinned := 0
	for i := range s.shards {
		shard := &s.shards[i]
		for _, f := range shard.frames {
			switch {
			case f == nil:
			case f.pins > 0:
				pinned++
			default:
				err = errors.Join(err, s.free(f))
			}
		}
		shard.frames, shard.free = nil, nil
		err = errors.Join(err, shard.slots.Free(), shard.pending.Free())
	}
	if pinned > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %d of them", errPinned, pinned))
	}
	return err
}

var errPinned = errors.New("pages are pinned that nobody uses")

// total returns what the cache has done.
func (c *cache) total() (sum stats) {
	for i := range c.shards {
		shard := &c.shards[i]
		shard.mu.Lock()
		sum.add(shard.stats)
		shard.mu.Unlock()
	}
	return sum
}
