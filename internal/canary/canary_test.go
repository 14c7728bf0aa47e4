package canary

import "testing"

// TestInspect: what is written around a block is found whole, and each byte that changes is found, at
// its offset, together with the last one that did.
func TestInspect(t *testing.T) {
	for _, length := range []int{0, 1, 15, 16, 17, 255, 256, 257, 5000} {
		for _, offset := range []int{-length, -7, 0, 1, 4096} {
			mem := make([]byte, length)
			Write(mem, offset)
			if m := Inspect(mem, offset); m != nil {
				t.Fatalf("%d bytes from %d on: %+v, want them intact", length, offset, m)
			}
			for i := 0; i < length; i += 1 + length/50 {
				last := min(i+20, length-1)
				mem[i] ^= 0x80
				if last > i {
					mem[last] ^= 1
				}
				m := Inspect(mem, offset)
				if m == nil || m.Offset != offset+i || m.Length != last-i+1 || len(m.Found) != min(8, m.Length) || m.Found[0] != m.Want[0]^0x80 {
					t.Fatalf("bytes %d and %d of %d from %d on are wrong: %+v", i, last, length, offset, m)
				}
				Write(mem, offset)
			}
		}
	}
}

// TestDiffers: memory that has one value throughout differs nowhere.
func TestDiffers(t *testing.T) {
	for _, length := range []int{0, 1, 2, 300} {
		mem := make([]byte, length)
		if m := Differs(mem, 0); m != nil {
			t.Errorf("%d zeros: %+v", length, m)
		}
		if length == 0 {
			continue
		}
		if m := Differs(mem, 1); m == nil || m.Offset != 0 || m.Length != length {
			t.Errorf("%d zeros that were to be ones: %+v", length, m)
		}
		mem[length-1] = 9
		if m := Differs(mem, 0); m == nil || m.Offset != length-1 || m.Length != 1 || m.Found[0] != 9 || m.Want[0] != 0 {
			t.Errorf("a 9 after %d zeros: %+v", length-1, m)
		}
	}
}
