//go:build cgo && unix && zlib

package cmem_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/cmem/internal/ctest"
)

// TestZlib: all that zlib allocates while it compresses is counted, and below a limit it fails as it does without memory.
func TestZlib(t *testing.T) {
	p, l, _ := stacked(t, 8<<20)
	const size = 1 << 20
	plain, packed, again := allocate(t, p, blockalloc.BlockLayout(size)), allocate(t, p, blockalloc.BlockLayout(size)), allocate(t, p, blockalloc.BlockLayout(size))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range plain.Bytes()[:size] {
		plain.Bytes()[i] = byte(random.IntN(16))
	}
	zlib := p.Child("zlib")
	n, err := ctest.Compress(zlib, plain, packed)
	if err != nil {
		t.Fatal(err)
	}
	if s := zlib.Stats(); s.Allocations < 4 || s.Frees != s.Allocations || s.LiveBytes != 0 || s.PeakBytes < 200<<10 || s.PeakBytes > 1<<20 {
		t.Errorf("zlib has allocated %v", s)
	}
	m, err := ctest.Uncompress(zlib, packed, n, again)
	if err != nil || m != size || !bytes.Equal(plain.Bytes()[:size], again.Bytes()[:size]) {
		t.Errorf("%d bytes, packed to %d, came back, %v", m, n, err)
	}
	l.SetMax(l.Used() + 100<<10)
	if _, err := ctest.Compress(zlib, plain, packed); !errors.Is(err, ctest.ErrZlib) || zlib.Stats().LiveBytes != 0 || zlib.Stats().Failures() == 0 {
		t.Errorf("with too little memory: %v, %v", err, zlib.Stats())
	}
	if err := errors.Join(p.Free(plain), p.Free(packed), p.Free(again)); err != nil {
		t.Error(err)
	}
}
