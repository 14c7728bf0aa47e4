package blockalloc

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// TestRadix holds a radix against a map, at addresses from the lowest to the
// highest there are, and around the borders between its nodes.
func TestRadix(t *testing.T) {
	addrBits := radixAddrBits
	for _, shift := range []uint{12, 16, 22, 26} {
		r := newRadix[int](shift)
		piece := uintptr(1) << shift
		numbers := uintptr(1) << (radixAddrBits - int(shift))
		rnd := rand.New(rand.NewPCG(1, uint64(shift)))
		model := make(map[uintptr]*int)
		for i := range 600 {
			n := uintptr(rnd.Uint64()) >> rnd.IntN(64) // most often low
			switch i % 4 {
			case 0:
				n = numbers - 1 - n%numbers
			case 1:
				n = n<<radixLeafBits - n&1
			case 2:
				n = n<<(radixLeafBits+radixNodeBits) - n&1
			}
			n %= numbers
			addr := n<<shift + uintptr(rnd.Uint64())%piece
			v := new(int)
			if i%5 == 4 {
				v = nil
			}
			if !r.store(addr, v) {
				t.Fatalf("shift %d: store at %#x is refused", shift, addr)
			}
			model[n] = v
		}
		for n, v := range model {
			for _, addr := range []uintptr{n << shift, n<<shift + piece - 1} {
				if r.load(addr) != v {
					t.Fatalf("shift %d: load(%#x) is not what was stored", shift, addr)
				}
			}
			for _, next := range []uintptr{n - 1, n + 1} {
				if next < numbers && r.load(next<<shift) != model[next] {
					t.Fatalf("shift %d: load(%#x) is not what was stored", shift, next<<shift)
				}
			}
		}
		if first := uintptr(1) << max(addrBits, int(shift)+radixNodeBits+radixLeafBits); first != 0 { // there are higher addresses than the radix has room for
			for _, addr := range []uintptr{first, first + piece, ^uintptr(0) - piece, ^uintptr(0)} {
				if r.load(addr) != nil || r.store(addr, new(int)) || r.load(addr) != nil {
					t.Errorf("shift %d: %#x is not refused", shift, addr)
				}
			}
		}
	}
}

// TestRadixConcurrent: goroutines that make the same nodes at once lose nothing.
func TestRadixConcurrent(t *testing.T) {
	const workers, each = 4, 64
	for range 50 {
		r := newRadix[int](16)
		var values [workers * each]int
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := range each {
					n := i*workers + w
					r.store(uintptr(n)*0x310000, &values[n])
				}
			})
		}
		wg.Wait()
		for n := range values {
			if r.load(uintptr(n)*0x310000) != &values[n] {
				t.Fatalf("what was stored at %#x is lost", n*0x310000)
			}
		}
	}
}
