package blocktest_test

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// relay hands everything to its parent, but moves blocks by itself, with one
// defect or none.
type relay struct {
	inner  blockalloc.Allocator
	defect string
	locked bool
}

func relayConfig(defect string) blocktest.Config {
	return blocktest.Config{
		NewOver: func(_ testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
			return &relay{inner: parent, defect: defect}, nil
		},
		MaxSize: 1 << 20,
	}
}

func (r *relay) Unwrap() blockalloc.Allocator { return r.inner }

func (r *relay) Owns(b blockalloc.Block) bool { return r.inner.(blockalloc.Owner).Owns(b) }

func (r *relay) Find(p unsafe.Pointer) (blockalloc.Block, bool) {
	if r.defect == "finds nothing" {
		return blockalloc.Block{}, false
	}
	return r.inner.(blockalloc.Finder).Find(p)
}

func (r *relay) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if r.defect == "stays locked" {
		if r.locked {
			return blockalloc.Block{}, errors.New("locked for ever")
		}
		r.locked = true
	}
	b, err := r.inner.Allocate(l)
	if r.defect == "stays locked" {
		r.locked = false
	}
	if r.defect == "hides the error" && errors.Is(err, blocktest.ErrInjected) {
		err = blockalloc.ErrOutOfMemory
	}
	return b, err
}

func (r *relay) Free(b blockalloc.Block) error {
	err := r.inner.Free(b)
	if r.defect == "drops the error of Free" && errors.Is(err, blocktest.ErrInjected) {
		return nil
	}
	return err
}

func (r *relay) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if size == 0 || !r.Owns(b) {
		return r.inner.Reallocate(b, size)
	}
	l := b.Layout()
	l.Size = size
	n, err := r.inner.Allocate(l)
	if err != nil {
		if r.defect == "returns nothing" {
			return blockalloc.Block{}, err
		}
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	freed := false
	defer func() {
		if !freed && r.defect != "leaks where the parent panics" {
			_ = r.inner.Free(n)
		}
	}()
	if err := r.inner.Free(b); err != nil {
		freed = r.defect == "leaks the new block"
		return b, err
	}
	freed = true
	return n, nil
}
