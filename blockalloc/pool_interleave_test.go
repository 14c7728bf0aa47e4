package blockalloc

import (
	"errors"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// These tests force orders of events that are rare otherwise. They act while the Pool
// is giving memory back or one of its calls is stopped, or as a goroutine that was
// stopped with a run in hand.

// aside runs f beside its caller, who waits a moment, for f may have to wait for the caller.
func aside(f func()) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Millisecond):
	}
	return func() { <-done }
}

// onePage is a Pool whose only block, of a page, has been freed.
func onePage(t *testing.T) (p *Pool, pages *PoolPages, freed Block) {
	t.Helper()
	pages = &PoolPages{}
	p = NewPool(pages, 0)
	freed = allocatePage(t, p)
	free(t, p, freed)
	return p, pages, freed
}

func allocatePage(t *testing.T, p *Pool) Block {
	t.Helper()
	b, err := p.Allocate(Layout{Size: pageSize, Align: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func free(t *testing.T, p *Pool, b Block) {
	t.Helper()
	if err := p.Free(b); err != nil {
		t.Error(err)
	}
}

// interleaved is a Pool with one run of pages, of which the first is live and the others
// have been freed.
func interleaved(t *testing.T) (p *Pool, pages *PoolPages, live Block, freed []Block) {
	t.Helper()
	pages = &PoolPages{}
	p = NewPool(pages, 0)
	n := runBlocks(pageShift)
	for i := range n {
		b := allocatePage(t, p)
		b.Bytes()[0] = 0xaa
		if i == 0 {
			live = b
		} else {
			freed = append(freed, b)
		}
	}
	for _, b := range freed {
		free(t, p, b)
	}
	t.Cleanup(func() {
		if live.Bytes()[0] != 0xaa {
			t.Error("a live block has lost its content")
		}
		free(t, p, live)
		settled(t, p, pages)
	})
	return p, pages, live, freed
}

// settled checks a Pool without live blocks, and closes it.
func settled(t *testing.T, p *Pool, pages *PoolPages) {
	t.Helper()
	pages.Before = nil
	if err := CheckPool(p); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if reserved, _, err := pages.Sizes(); reserved != 0 || err != nil {
		t.Errorf("after Close %d B are reserved; %v", reserved, err)
	}
}

// TestPoolSecondFreeDuringPurge: a block that is frozen while its memory is given back
// is not live.
func TestPoolSecondFreeDuringPurge(t *testing.T) {
	p, pages, _, freed := interleaved(t)
	var waits []func()
	pages.Before = func(c PoolCall) error {
		for _, b := range []Block{freed[0], freed[len(freed)-1]} {
			waits = append(waits, aside(func() {
				if p.Owns(b) {
					t.Errorf("Owns(%v), which was freed", b)
				}
				if _, err := p.Reallocate(b, 1); !errors.Is(err, ErrDoubleFree) {
					t.Errorf("Reallocate of a freed block: error %v, want ErrDoubleFree", err)
				}
				if err := p.Free(b); !errors.Is(err, ErrDoubleFree) {
					t.Errorf("second Free: error %v, want ErrDoubleFree", err)
				}
			}))
		}
		return nil
	}
	if err := p.Trim(); err != nil {
		t.Error(err)
	}
	for _, wait := range waits {
		wait()
	}
	if len(waits) == 0 {
		t.Error("Trim gave nothing back")
	}
	if s := p.Stats(); s.LiveBlocks != 1 || s.Cached != 0 {
		t.Errorf("one block is live, none is cached: %+v", s)
	}
}

// TestPoolAllocateDuringPurge: a block allocated meanwhile has memory of its own once it is
// handed out, and a block freed meanwhile is free.
func TestPoolAllocateDuringPurge(t *testing.T) {
	p, pages, _, _ := interleaved(t)
	extra := allocatePage(t, p)
	var got []Block
	var mu sync.Mutex
	var waits []func()
	pages.Before = func(c PoolCall) error {
		if len(waits) > 0 {
			return nil
		}
		waits = append(waits, aside(func() { free(t, p, extra) }))
		for range 3 {
			waits = append(waits, aside(func() {
				b, err := p.Allocate(Layout{Size: pageSize, Align: 1})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				b.Bytes()[0] = 0xbb
				got = append(got, b)
			}))
		}
		return nil
	}
	if err := p.Trim(); err != nil {
		t.Error(err)
	}
	for _, wait := range waits {
		wait()
	}
	if s := p.Stats(); s.LiveBlocks != 4 || s.Cached > int64(pageSize) {
		t.Errorf("four blocks are live, and one may be cached: %+v", s)
	}
	for i, b := range got {
		if b.Bytes()[0] != 0xbb || !p.Owns(b) || i > 0 && b.Addr() == got[i-1].Addr() {
			t.Errorf("%v begins with %#x; owned: %v", b, b.Bytes()[0], p.Owns(b))
		}
		free(t, p, b)
		b.Bytes()[0] = 0 // still the Pool's memory, and now there is some to give back
	}
	if s := p.Stats(); s.Cached < int64(len(got)*int(pageSize)) {
		t.Errorf("%d blocks were written to and freed: %+v", len(got), s)
	}
}

// TestPoolTakeDuringDissolve: a goroutine that has a run from earlier takes a block of
// it while the Pool dissolves the run.
func TestPoolTakeDuringDissolve(t *testing.T) {
	p, pages, b := onePage(t)
	r, _ := p.find(b)
	var got unsafe.Pointer
	var waits []func()
	pages.Before = func(c PoolCall) error {
		if c.Name == "purge" && len(waits) == 0 {
			waits = append(waits, aside(func() {
				if got, _ = r.take(); got != nil {
					*(*byte)(got) = 0xcc
				}
			}))
		}
		return nil
	}
	if err := p.Trim(); err != nil {
		t.Error(err)
	}
	if len(waits) == 0 {
		t.Fatal("Trim gave nothing back")
	}
	waits[0]()
	pages.Before = nil
	if got != nil { // then the run is still there
		b := Block{got, pageSize, pageSize, 1}
		if s := p.Stats(); *(*byte)(got) != 0xcc || !p.Owns(b) || s.LiveBlocks != 1 {
			t.Errorf("%v was taken while its run was given up; owned: %v, %+v", b, p.Owns(b), s)
		}
		if err := CheckPool(p); err != nil {
			t.Error(err)
		}
		free(t, p, b)
	}
	if err := p.Trim(); err != nil {
		t.Error(err)
	}
	// Now the run was dissolved.
	if ptr, _ := r.take(); ptr != nil {
		t.Errorf("a block was taken at %#x, of a run that was dissolved", uintptr(ptr))
	}
	if err := p.Free(b); err == nil || p.Owns(b) {
		t.Errorf("Free of a block of a run that was dissolved: error %v; owned: %v", err, p.Owns(b))
	}
	settled(t, p, pages)
}

// TestPoolKeepsRunInUse: a run with a live block is not dissolved, even if the block is
// taken after the Pool found all of them free.
func TestPoolKeepsRunInUse(t *testing.T) {
	for name, fails := range map[string]bool{"purge": false, "failed purge": true} {
		t.Run(name, func(t *testing.T) {
			p, pages, b := onePage(t)
			r, _ := p.find(b)
			// As if a goroutine took a block between two looks of Trim at the run.
			p.mu.Lock()
			p.releaseCurrent()
			ptr, _ := r.take()
			pages.Before = func(PoolCall) error {
				if fails {
					return errors.New("injected")
				}
				return nil
			}
			*(*byte)(ptr) = 0xdd
			if err := p.dissolve(r); r.dissolved || err != nil {
				t.Errorf("a run with a live block was given up: %v", err)
			}
			p.mu.Unlock()
			if *(*byte)(ptr) != 0xdd {
				t.Error("a live block has lost its content")
			}
			pages.Before = nil
			if err := CheckPool(p); err != nil {
				t.Error(err)
			}
			free(t, p, Block{ptr, pageSize, pageSize, 1})
			settled(t, p, pages)
		})
	}
}

// TestPoolForgetsChunksFirst: when address space is given back, the Pool has forgotten
// it, because others may get it. If it is refused, the Pool knows it again.
func TestPoolForgetsChunksFirst(t *testing.T) {
	p, pages, b := onePage(t)
	refuse, released := errors.New("injected"), 0
	pages.Before = func(c PoolCall) error {
		if c.Name != "release" {
			return nil
		}
		released++
		if err := p.Free(b); !errors.Is(err, ErrNotOwned) || p.Owns(b) {
			t.Errorf("Free of a block where others may have one: error %v, want ErrNotOwned; owned: %v", err, p.Owns(b))
		}
		return refuse
	}
	if err := p.Trim(); !errors.Is(err, refuse) {
		t.Errorf("Trim: error %v, want that of the refused release", err)
	}
	if err := p.Free(b); !errors.Is(err, ErrDoubleFree) {
		t.Errorf("Free of a block in a chunk that stays: error %v, want ErrDoubleFree", err)
	}
	if err := CheckPool(p); err != nil {
		t.Error(err)
	}
	if err := p.Close(); !errors.Is(err, refuse) {
		t.Errorf("Close: error %v, want that of the refused release", err)
	}
	b = allocatePage(t, p) // after a failed Close
	b.Bytes()[0] = 1
	free(t, p, b)
	refuse = nil
	if err := p.Trim(); err != nil || released != 3 {
		t.Errorf("Trim: %v, %d releases were tried, want 3", err, released)
	}
	settled(t, p, pages)
}

// TestPoolCloseLetsNobodyIn: allocations and frees while Close runs, after it found no
// live block, leave nothing behind.
func TestPoolCloseLetsNobodyIn(t *testing.T) {
	pages := &PoolPages{}
	p := NewPool(pages, 0)
	b := allocatePage(t, p)
	other, err := p.Allocate(Layout{Size: 4 * pageSize, Align: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Free(b), p.Free(other)); err != nil {
		t.Fatal(err)
	}
	var waits []func()
	pages.Before = func(c PoolCall) error {
		waits = append(waits, aside(func() { _ = p.Free(b) })) // succeeds if it was allocated below
		return nil
	}
	// Close waits for the lock first, and behind it one who allocates without the lock. When
	// those have waited long, the lock goes from one to the next.
	p.mu.Lock()
	closed := make(chan error)
	go func() { closed <- p.Close() }()
	time.Sleep(3 * time.Millisecond)
	waited := make(chan struct{})
	go func() {
		p.mu.Lock()
		for i := range p.shards {
			if r := p.shards[i].current[pageShift-minPoolShift].Load(); r != nil {
				r.take()
			}
		}
		p.mu.Unlock()
		close(waited)
	}()
	time.Sleep(3 * time.Millisecond)
	p.mu.Unlock()
	p.mu.Lock() // before those who wake up: from now on the lock is handed over
	time.Sleep(3 * time.Millisecond)
	p.mu.Unlock()
	<-waited
	err = <-closed
	for _, wait := range waits {
		wait()
	}
	if errors.Is(err, ErrLive) {
		_ = p.Free(b) // if that was not done
		err = p.Close()
	}
	if err != nil {
		t.Error(err)
	}
	for _, size := range []uintptr{pageSize, 4 * pageSize} {
		if b, err := p.Allocate(Layout{Size: size, Align: 1}); !errors.Is(err, ErrClosed) {
			t.Errorf("Allocate after Close = %v, %v; want ErrClosed", b, err)
		}
	}
	settled(t, p, pages)
}

// TestPoolCloseTwiceAtOnce: a Close says that all is given back only once it is.
func TestPoolCloseTwiceAtOnce(t *testing.T) {
	p, pages, _ := onePage(t)
	var wait func()
	refuse, refused := errors.New("injected"), false
	pages.Before = func(c PoolCall) error {
		if wait == nil {
			wait = aside(func() {
				if err := p.Close(); err == nil && PoolChunks(p) > 0 {
					t.Error("a second Close returned nil, and the first has failed")
				}
			})
		} else if c.Name == "release" && !refused {
			refused = true
			time.Sleep(3 * time.Millisecond) // the second waits for the lock, and gets it next
			return refuse
		}
		return nil
	}
	if err := p.Close(); !errors.Is(err, refuse) {
		t.Errorf("Close: error %v, want that of the refused release", err)
	}
	wait()
	settled(t, p, pages)
}
