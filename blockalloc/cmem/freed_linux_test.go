//go:build cgo

package cmem_test

import (
	"errors"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/cmem"
	"github.com/alloctrace/alloctrace/blockalloc/cmem/internal/ctest"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// TestFreed: whichever way a block goes, its memory is given back, once.
func TestFreed(t *testing.T) {
	const size, rounds, most = 1 << 20, 300, 100 << 20
	m := new(cmem.Malloc)
	refuses := failing.If(m, func(c failing.Call) bool { return c.Op == failing.OpFree })
	for way, free := range map[string]func(b blockalloc.Block) error{
		"Free": m.Free,
		"IntoC": func(b blockalloc.Block) error {
			p, err := cmem.IntoC(m, b)
			ctest.Free(p)
			return err
		},
		"Reallocate": func(b blockalloc.Block) error {
			b, err := m.Reallocate(b, size/2)
			return errors.Join(err, m.Free(b))
		},
		"IntoC that fails": func(b blockalloc.Block) error {
			if _, err := cmem.IntoC(refuses, b); err == nil {
				return errors.New("IntoC has not failed")
			}
			return m.Free(b)
		},
		"FromC": func(b blockalloc.Block) error {
			p, err := cmem.IntoC(m, b)
			if err == nil {
				b, err = cmem.FromC(t.Context(), m, p, size)
			}
			return errors.Join(err, m.Free(b))
		},
	} {
		for _, align := range []uintptr{8, 4096} {
			before := measure.Resident(t)
			for range rounds {
				b := allocate(t, m, blockalloc.Layout{Size: size, Align: align})
				for i := 0; i < size; i += 4096 {
					b.Bytes()[i] = 1
				}
				if err := free(b); err != nil {
					t.Fatal(err)
				}
			}
			if grown := measure.Resident(t) - before; grown > most {
				t.Errorf("%s of blocks aligned to %d: resident memory has grown by %d bytes", way, align, grown)
			}
		}
	}
}
