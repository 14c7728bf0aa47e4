package reach

import (
	"math/rand/v2"
	"testing"
)

// nested returns blocks side by side and in each other.
func nested(rnd *rand.Rand, addr, size uintptr, depth int, list []Block) []Block {
	for at := addr; at < addr+size; {
		b := Block{at, min(addr+size-at, 1+uintptr(rnd.IntN(int(size))))}
		if rnd.IntN(4) > 0 {
			list = append(list, b)
			if depth > 0 && rnd.IntN(2) == 0 {
				list = nested(rnd, b.Addr, b.Size, depth-1, list)
			}
		}
		at = b.end()
	}
	return list
}

// TestIndex: the innermost block of each address is found, and each byte is its own block's alone.
func TestIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		const base, size = 1000, 300
		blocks := nested(rnd, base, size, 3, nil)
		rnd.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
		x := newIndex(blocks)
		owner := make(map[uintptr]int)
		for i := range x.blocks {
			if x.blocks[i] != blocks[x.place[i]] {
				t.Fatalf("block %d is %v, not %v", i, x.blocks[i], blocks[x.place[i]])
			}
			x.own(i, func(addr, size uintptr) {
				for a := addr; a < addr+size; a++ {
					if other, ok := owner[a]; ok {
						t.Fatalf("%d is of blocks %v and %v", a, x.blocks[i], x.blocks[other])
					}
					owner[a] = i
				}
			})
		}
		for a := uintptr(base - 10); a < base+size+10; a++ {
			got := x.find(a)
			smallest := none
			for i, b := range x.blocks {
				if b.has(a) && (smallest == none || b.Size <= x.blocks[smallest].Size) {
					smallest = i
				}
			}
			if smallest == none {
				if got != none {
					t.Fatalf("%d is in no block, and was found in %v", a, x.blocks[got])
				}
			} else if got == none || x.blocks[got] != x.blocks[smallest] || owner[a] != got {
				t.Fatalf("%d is in %v, and was found in block %d, and is of block %d", a, x.blocks[smallest], got, owner[a])
			}
			n := uintptr(1 + rnd.IntN(20))
			overlaps := false
			for b := a; b < a+n; b++ {
				_, ok := owner[b]
				overlaps = overlaps || ok
			}
			if x.overlaps(a, n) != overlaps {
				t.Fatalf("%d bytes at %d overlap: %v", n, a, !overlaps)
			}
		}
	}
}
