package typed_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// FuzzVec reads operations from data and holds what a Vec does against a slice.
// The first byte chooses the element type.
func FuzzVec(f *testing.F) {
	for kind := range byte(5) {
		f.Add([]byte{kind, 0, 3, 1, 1, 2, 0, 3, 2, 4, 200, 15, 0, 9, 0, 5, 1, 12, 7})
		f.Add([]byte{kind, 0, 90, 1, 40, 3, 10, 14, 0, 0, 77, 6, 3, 16, 0, 11, 0, 7, 200})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 0 {
			replayVec(t, alloctest.New(t), data[0], data[1:])
		}
	})
}

// TestVecModel runs FuzzVec's operations at random, as many as take a moment.
func TestVecModel(t *testing.T) {
	mem, pool := alloctest.New(t), newPool(t)
	random := rand.New(rand.NewPCG(1, 2))
	for seed := range 300 {
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		replayVec(t, mem, byte(seed), data)
		if seed%10 == 0 {
			replayVec(t, pool, byte(seed), data)
		}
	}
}

func replayVec(t *testing.T, mem *alloctrace.Proxy, kind byte, data []byte) {
	switch kind % 5 {
	case 0:
		replayVecOf(t, mem, data, func(n byte) byte { return n })
	case 1:
		replayVecOf(t, mem, data, func(n byte) uint64 { return uint64(n) << 40 })
	case 2:
		replayVecOf(t, mem, data, func(n byte) [3]uint16 { return [3]uint16{uint16(n), 1, uint16(n) << 8} })
	case 3:
		replayVecOf(t, mem, data, func(n byte) (big [70]int32) { big[0], big[69] = int32(n), -int32(n); return big })
	case 4:
		replayVecOf(t, mem, data, func(byte) struct{} { return struct{}{} })
	}
}

// A vecModel is a Vec and the slice that it should be.
type vecModel[T comparable] struct {
	*testing.T
	a    *checked
	vec  *typed.Vec[T]
	want []T
	data []byte // operations to come
	make func(byte) T
}

func replayVecOf[T comparable](t *testing.T, mem *alloctrace.Proxy, data []byte, make func(byte) T) {
	a := checkedOver(mem)
	vec := typed.NewVec[T](a)
	m := &vecModel[T]{T: t, a: a, vec: vec, data: data, make: make}
	for len(m.data) > 0 {
		op := m.next()
		m.step(op % 17)
		m.compare(op % 17)
	}
	must(t, m.vec.Free())
}

func (m *vecModel[T]) next() byte {
	if len(m.data) == 0 {
		return 0
	}
	n := m.data[0]
	m.data = m.data[1:]
	return n
}

// index returns a number from 0 to n.
func (m *vecModel[T]) index(n int) int { return int(m.next()) % (n + 1) }

// items returns some elements: new ones, or the Vec's own.
func (m *vecModel[T]) items() []T {
	n := m.next()
	if n%4 == 3 {
		i := m.index(m.vec.Len())
		return m.vec.Slice()[i:]
	}
	items := make([]T, n/3)
	for i := range items {
		items[i] = m.make(n + byte(i))
	}
	return items
}

// grown sees to an error: only an injected one may come, and then want is left as
// it is.
func (m *vecModel[T]) grown(err error, want []T) {
	m.Helper()
	if err == nil {
		m.want = want
	} else if err != errInjected {
		m.Fatalf("error %v, want the injected one", err)
	}
}

func (m *vecModel[T]) step(op byte) {
	length := len(m.want)
	if length > 3000 {
		op = 7
	}
	switch op {
	case 0, 1:
		items := m.items()
		want := append(slices.Clone(m.want), items...)
		m.grown(m.vec.Append(items...), want)
	case 2:
		i := m.index(length)
		items := m.items()
		want := slices.Insert(slices.Clone(m.want), i, items...)
		m.grown(m.vec.Insert(i, items...), want)
	case 3:
		i := m.index(length)
		j := i + m.index(length-i)
		m.vec.Delete(i, j)
		m.want = slices.Delete(m.want, i, j)
	case 4:
		n := int(m.next()) * 2
		if n < length {
			m.want = m.want[:n]
			m.grown(m.vec.Resize(n), m.want)
		} else {
			m.grown(m.vec.Resize(n), append(slices.Clone(m.want), make([]T, n-length)...))
		}
	case 5:
		x, ok := m.vec.Pop()
		if ok != (length > 0) || ok && x != m.want[length-1] {
			m.Fatalf("Pop = %v, %t of %d elements", x, ok, length)
		}
		m.want = m.want[:max(length-1, 0)]
	case 6:
		if length > 0 {
			i, x := m.index(length-1), m.make(m.next())
			m.vec.Set(i, x)
			m.want[i] = x
		}
	case 7:
		n := m.index(length)
		m.vec.Truncate(n)
		m.want = m.want[:n]
	case 8:
		m.vec.Clear()
		m.want = nil
	case 9:
		n := int(m.next())
		if err := m.vec.Grow(n); err == nil && m.vec.Cap() < length+n || err != nil && err != errInjected {
			m.Fatalf("Grow(%d) = %v with room for %d of %d", n, err, m.vec.Cap(), length)
		}
	case 10:
		n := int(m.next()) * 4
		if err := m.vec.Reserve(n); err == nil && m.vec.Cap() < n || err != nil && err != errInjected {
			m.Fatalf("Reserve(%d) = %v with room for %d", n, err, m.vec.Cap())
		}
	case 11:
		err := m.vec.Shrink()
		m.grown(err, m.want)
		needed := length * m.size()
		if held := m.held(); err == nil && held != needed && (needed == 0 || m.a.asked != uintptr(needed)) {
			m.Fatalf("%d bytes after Shrink to %d, and %d were asked for", held, needed, m.a.asked)
		}
	case 12:
		clone, err := m.vec.Clone()
		m.grown(err, m.want)
		if err == nil {
			old := m.vec
			m.vec = clone
			m.compare(op)
			must(m.T, old.Free())
		}
	case 13:
		m.outOfRange(m.next())
	case 14:
		m.a.failAt = m.a.calls + 1 + int(m.next()%2)
	case 15:
		must(m.T, m.vec.Free())
		if size := m.held(); size > 0 {
			m.Fatalf("%d bytes are live after Free", size)
		}
		vec := typed.NewVec[T](m.a)
		m.vec, m.want = vec, nil
	case 16:
		m.changeWhileIterating()
	}
}

func (m *vecModel[T]) size() int {
	var x T
	return int(unsafe.Sizeof(x))
}

// held returns how many bytes the Vec's block has, and fails if there are two.
func (m *vecModel[T]) held() int {
	if m.a.live > 1 {
		m.Fatalf("%d blocks are live", m.a.live)
	}
	return int(m.a.size)
}

func (m *vecModel[T]) compare(op byte) {
	if got := m.vec.Slice(); !slices.Equal(got, m.want) || m.vec.Len() != len(m.want) || cap(got) != len(got) {
		m.Fatalf("after operation %d: %d elements, want %d: %v, want %v", op, m.vec.Len(), len(m.want), got, m.want)
	}
	if op == 12 || m.size() == 0 {
		return // two blocks are live, or none
	}
	if size := m.held(); m.vec.Cap() != size/m.size() {
		m.Fatalf("after operation %d: room for %d elements of %d B in %d B", op, m.vec.Cap(), m.size(), size)
	}
	for i, x := range m.vec.All() {
		if x != m.want[i] || m.vec.At(i) != x {
			m.Fatalf("after operation %d: element %d is %v, want %v", op, i, x, m.want[i])
		}
	}
}

// outOfRange: what a slice refuses, a Vec refuses in the same way.
func (m *vecModel[T]) outOfRange(n byte) {
	length := len(m.want)
	var x T
	i := length + int(n)
	if n%2 == 1 {
		i = -int(n)
	}
	for _, f := range []func(){
		func() { m.vec.At(i) },
		func() { m.vec.Set(i, x) },
		func() { m.vec.Insert(i+1-int(n)%2, x) },
		func() { m.vec.Delete(i, i+1) },
		func() { m.vec.Delete(0, length+1) },
		func() { m.vec.Truncate(i + 1) },
	} {
		if i+1 == 0 {
			continue // Truncate(0) is none
		}
		wantPanic(m.T, "out of range", f)
	}
}

// changeWhileIterating: iterators see a Vec that moves or is cut short.
func (m *vecModel[T]) changeWhileIterating() {
	length := len(m.want)
	if length == 0 || length > 1000 {
		return
	}
	steps := 0
	for i, x := range m.vec.All() {
		if x != m.want[i] {
			m.Fatalf("element %d is %v, want %v", i, x, m.want[i])
		}
		if steps++; steps <= length {
			if err := m.vec.Append(x); err == nil {
				m.want = append(m.want, x)
			} else if !errors.Is(err, errInjected) {
				m.Fatal(err)
			}
		}
	}
	if steps != len(m.want) {
		m.Fatalf("%d steps over a Vec that became %d elements", steps, len(m.want))
	}
	for i, x := range m.vec.Backward() {
		if x != m.want[i] {
			m.Fatalf("element %d is %v, want %v", i, x, m.want[i])
		}
		m.want = m.want[:i/2]
		m.vec.Truncate(i / 2)
	}
	for range m.vec.Values() {
		m.Fatal("an element is left")
	}
}
