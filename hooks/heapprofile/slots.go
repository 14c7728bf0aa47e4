package heapprofile

import "math/bits"

// slots are blocks by address: a table that is at most three quarters full, in which a block is
// at the place that its hash says, or after it without a gap. Unlike a map, what it
// takes is known, and blocks that come and go do not make it grow.
type slots struct {
	at   []slot // a power of two, or none
	used int
}

type slot struct {
	key uintptr // the complement of the address, where no block is; 0 if the slot is free
	block
}

// home returns where the search for a key begins.
func (s *slots) home(key uintptr) int {
	return int(hashOf(key) >> (64 - bits.TrailingZeros(uint(len(s.at)))))
}

// find returns the place of the block at addr of this size that a Proxy has allocated, or else of
// the one that was allocated last, and whether there is one.
func (s *slots) find(addr, size uintptr, proxy uint32) (place int, ok bool) {
	if s.used == 0 {
		return 0, false
	}
	key := ^addr
	for i := s.home(key); s.at[i].key != 0; i = (i + 1) & (len(s.at) - 1) {
		if b := &s.at[i]; b.key == key && b.size == size {
			if b.by.id == proxy {
				return i, true
			}
			if !ok || b.serial > s.at[place].serial {
				place, ok = i, true
			}
		}
	}
	return place, ok
}

// has reports whether there is a block of this Proxy.
func (s *slots) has(addr, size uintptr, proxy uint32) bool {
	i, ok := s.find(addr, size, proxy)
	return ok && s.at[i].by.id == proxy
}

// put takes in a block, instead of what its Proxy has at its address with its size, which it
// returns, and reports whether that was nothing.
func (s *slots) put(addr uintptr, b *block) (was block, added bool) {
	if i, ok := s.find(addr, b.size, b.by.id); ok && s.at[i].by.id == b.by.id {
		was, s.at[i].block = s.at[i].block, *b
		return was, false
	}
	if 4*(s.used+1) > 3*len(s.at) {
		old := s.at
		s.at = make([]slot, max(8, 2*len(old)))
		for i := range old {
			if key := old[i].key; key != 0 {
				s.at[s.free(key)] = old[i]
			}
		}
	}
	s.at[s.free(^addr)] = slot{^addr, *b}
	s.used++
	return was, true
}

// free returns the free slot that ends the search for a key.
func (s *slots) free(key uintptr) int {
	i := s.home(key)
	for s.at[i].key != 0 {
		i = (i + 1) & (len(s.at) - 1)
	}
	return i
}

// remove takes out the block at place i, and moves those up that would not be found then.
func (s *slots) remove(i int) {
	mask := len(s.at) - 1
	for j := (i + 1) & mask; s.at[j].key != 0; j = (j + 1) & mask {
		if (j-s.home(s.at[j].key))&mask >= (j-i)&mask {
			s.at[i] = s.at[j]
			i = j
		}
	}
	s.at[i] = slot{}
	s.used--
}
