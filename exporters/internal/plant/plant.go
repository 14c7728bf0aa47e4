// Package plant is a program with something of each kind to be found in it: growth, a leak, fragmentation, storms of short-lived blocks, failures,
// and a cache that is as it should be.
package plant

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// A Program allocates through children that are named after what they do. One goroutine may use it.
type Program struct {
	Proxy   *alloctrace.Proxy
	Profile *heapprofile.Profile
	Ring    *ring.Ring

	pool  *blockalloc.Pool
	slab  *blockalloc.Slab
	clock *ring.CoarseClock

	sessions, uploads, index, parser, cache, thumbnails *alloctrace.Proxy

	open []blockalloc.Block // sessions, the oldest first
	kept []blockalloc.Block // of the cache, the index and the thumbnails
	many []blockalloc.Block // of Scale
}

// The sizes of what is planted, in bytes.
const (
	SessionSize   = 16 << 10
	UploadSize    = 64 << 10
	EntrySize     = 256 // of the index
	TokenSize     = 512 // of the parser
	CacheSize     = 8 << 20
	ThumbnailSize = 256 << 10

	thumbnails = 4 // that the limit has room for
)

// New returns a Program whose cache, index and thumbnails are made. Its Ring keeps so many of the last events of each processor. Its Proxy has
// more hooks, each of which a function makes that is passed the Profile.
func New(events int, more ...func(*heapprofile.Profile) (alloctrace.Hook, error)) (*Program, error) {
	p := &Program{
		Profile: heapprofile.New(heapprofile.Options{Rate: 1, Peak: true, Lifetimes: true}),
		pool:    new(blockalloc.Pool),
		clock:   ring.NewCoarseClock(20 * time.Millisecond),
	}
	p.Ring = ring.New(events, p.clock)
	var err error
	if p.slab, err = blockalloc.NewSlab(p.pool, 64<<10); err != nil {
		return nil, err
	}
	hooks := []alloctrace.Hook{p.Profile, p.Ring}
	for _, hook := range more {
		h, err := hook(p.Profile)
		if err != nil {
			return nil, err
		}
		hooks = append(hooks, h)
	}
	p.Proxy = alloctrace.Wrap(p.slab, alloctrace.WithName("app"), alloctrace.WithHooks(hooks...))
	p.sessions, p.uploads, p.index = p.Proxy.Child("sessions"), p.Proxy.Child("uploads"), p.Proxy.Child("index")
	p.parser, p.cache = p.Proxy.Child("parser"), p.Proxy.Child("cache")
	p.thumbnails = p.Proxy.Child("thumbnails", alloctrace.WithInner(func(inner blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLimit(inner, thumbnails*ThumbnailSize)
	}))
	if err := errors.Join(p.fillCache(), p.buildIndex(), p.makeThumbnails()); err != nil {
		return nil, err
	}
	return p, nil
}

// fillCache has the blocks that a cache has, which nobody is to suspect.
func (p *Program) fillCache() error {
	for range 4 {
		if err := p.keep(p.cache.Allocate(blockalloc.BlockLayout(CacheSize))); err != nil {
			return err
		}
	}
	return nil
}

func (p *Program) keep(b blockalloc.Block, err error) error {
	if err == nil {
		p.kept = append(p.kept, b)
	}
	return err
}

// buildIndex leaves one entry of sixteen, each of which keeps memory from others.
func (p *Program) buildIndex() error {
	layout := blockalloc.Layout{Size: EntrySize, Align: 8}
	var built []blockalloc.Block
	for range 16 << 10 {
		b, err := p.index.Allocate(layout)
		if err != nil {
			return err
		}
		b.Bytes()[0] = 1 // or the kernel gives it no memory
		built = append(built, b)
	}
	for i, b := range built {
		if i%16 == 0 {
			p.kept = append(p.kept, b)
		} else if err := p.index.Free(b); err != nil {
			return err
		}
	}
	return nil
}

// Step goes on for a moment: it opens three sessions and closes one, receives an upload of which nobody keeps the block, parses requests, and
// fails to make a thumbnail, of which there are as many as may be.
func (p *Program) Step() error {
	for range 3 {
		if err := p.openSession(); err != nil {
			return err
		}
	}
	if err := p.closeSession(); err != nil {
		return err
	}
	if err := p.receiveUpload(); err != nil {
		return err
	}
	for range 100 {
		if err := p.parseRequest(); err != nil {
			return err
		}
	}
	if err := p.makeThumbnail(); !errors.Is(err, blockalloc.ErrLimit) {
		return fmt.Errorf("plant: a thumbnail beyond the limit: %w", err)
	}
	return nil
}

func (p *Program) openSession() error {
	b, err := p.sessions.Allocate(blockalloc.BlockLayout(SessionSize))
	if err == nil {
		p.open = append(p.open, b)
	}
	return err
}

func (p *Program) closeSession() error {
	oldest := p.open[0]
	p.open = p.open[1:]
	return p.sessions.Free(oldest)
}

// receiveUpload forgets the block.
func (p *Program) receiveUpload() error {
	b, err := p.uploads.Allocate(blockalloc.BlockLayout(UploadSize))
	if err == nil {
		b.Bytes()[0] = 1
	}
	return err
}

// parseRequest has twenty blocks for a moment.
func (p *Program) parseRequest() error {
	var tokens [20]blockalloc.Block
	for i := range tokens {
		var err error
		if tokens[i], err = p.parser.Allocate(blockalloc.Layout{Size: TokenSize, Align: 8}); err != nil {
			return err
		}
	}
	for _, b := range tokens {
		if err := p.parser.Free(b); err != nil {
			return err
		}
	}
	return nil
}

// makeThumbnails makes as many as may be.
func (p *Program) makeThumbnails() error {
	for range thumbnails {
		if err := p.makeThumbnail(); err != nil {
			return err
		}
	}
	return nil
}

func (p *Program) makeThumbnail() error {
	return p.keep(p.thumbnails.Allocate(blockalloc.BlockLayout(ThumbnailSize)))
}

// Scale adds so many live blocks, by so many sites, and delivers so many events.
func (p *Program) Scale(blocks, sites, events int) error {
	child := p.Proxy.Child("many")
	for i := range max(blocks, sites) {
		b, err := left(child, uint(i%sites), sitesBits)
		if err != nil {
			return err
		}
		p.many = append(p.many, b)
	}
	return p.churn(child, events)
}

// churn delivers so many events, of blocks of all sizes that live for a while.
func (p *Program) churn(child *alloctrace.Proxy, events int) error {
	random := rand.New(rand.NewPCG(1, 2))
	var live [256]blockalloc.Block
	for before := p.Ring.Observed(); p.Ring.Observed()-before < uint64(events); {
		at := &live[random.IntN(len(live))]
		if err := child.Free(*at); err != nil {
			return err
		}
		var err error
		if *at, err = child.Allocate(blockalloc.Layout{Size: uintptr(16 + random.IntN(2000)), Align: 8}); err != nil {
			return err
		}
	}
	for _, b := range live {
		if err := child.Free(b); err != nil {
			return err
		}
	}
	return nil
}

// sitesBits is how deep the calls are that make a site of each number.
const sitesBits = 10

// left and right call each other as the bits of a number say, and one of them allocates.
//
//go:noinline
func left(mem *alloctrace.Proxy, number uint, bits int) (blockalloc.Block, error) {
	if bits == 0 {
		return mem.Allocate(blockalloc.Layout{Size: 64 + uintptr(number%8)*64, Align: 8})
	}
	if number&1 == 0 {
		return left(mem, number>>1, bits-1)
	}
	return right(mem, number>>1, bits-1)
}

//go:noinline
func right(mem *alloctrace.Proxy, number uint, bits int) (blockalloc.Block, error) {
	if bits == 0 {
		return mem.Allocate(blockalloc.Layout{Size: 64 + uintptr(number%8)*64, Align: 8})
	}
	if number&1 == 0 {
		return left(mem, number>>1, bits-1)
	}
	return right(mem, number>>1, bits-1)
}

// Close gives all memory back, also what has leaked, which the Profile alone knows.
func (p *Program) Close() error {
	var errs []error
	for _, b := range p.many { // of which some may not be sampled
		errs = append(errs, p.Proxy.Free(b))
	}
	for _, b := range p.Profile.Blocks() {
		raw, err := blockalloc.FromRaw(*(*unsafe.Pointer)(unsafe.Pointer(&b.Addr)), blockalloc.Layout{Size: b.Size, Align: b.Align})
		if err == nil {
			err = p.slab.Free(raw)
		}
		errs = append(errs, err)
	}
	p.clock.Close()
	return errors.Join(append(errs, p.slab.Close(), p.pool.Close())...)
}
