package typed_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// A user works with a container and knows what must be in it.
type user struct {
	steps []func() error // each does one thing, or if it fails nothing
	check func() error
	free  []func() error // can be called again, whatever came of it
}

// add appends n steps, each of which gets its number.
func (u *user) add(n int, step func(i int) error) {
	for i := range n {
		u.steps = append(u.steps, func() error { return step(i) })
	}
}

// freed frees c, now and in the end again.
func (u *user) freed(c interface{ Free() error }) error {
	u.free = append(u.free, c.Free)
	return c.Free()
}

func differ[T any](got, want T, equal bool) error {
	if !equal {
		return fmt.Errorf("it has %v, want %v", got, want)
	}
	return nil
}

// users has one of each container.
var users = map[string]func(t *testing.T, mem blockalloc.Allocator) *user{
	"Vec": func(t *testing.T, mem blockalloc.Allocator) *user {
		v := typed.NewVec[int](mem)
		u, want := &user{free: []func() error{v.Free}}, []int{}
		u.check = func() error { return differ(v.Slice(), want, slices.Equal(v.Slice(), want)) }
		u.add(30, func(i int) error {
			err := v.Append(i, i+1)
			if err == nil {
				want = append(want, i, i+1)
			}
			return err
		})
		u.add(1, func(int) error { return v.Reserve(300) })
		u.add(1, func(int) error { return v.Shrink() })
		u.add(1, func(int) error {
			at := min(3, v.Len())
			err := v.Insert(at, v.Slice()...)
			if err == nil {
				want = slices.Insert(want, at, slices.Clone(want)...)
			}
			return err
		})
		u.add(1, func(int) error {
			c, err := v.Clone()
			if err != nil {
				return err
			}
			return errors.Join(differ(c.Slice(), want, slices.Equal(c.Slice(), want)), u.freed(c))
		})
		u.add(1, func(int) error {
			err := v.Resize(500)
			if err == nil {
				want = append(want, make([]int, 500-len(want))...)
			}
			return err
		})
		return u
	},
	"Map": func(t *testing.T, mem blockalloc.Allocator) *user {
		m := newMap[int, int](t, mem)
		u, want := &user{free: []func() error{m.Free}}, map[int]int{}
		u.check = func() error {
			got := maps.Collect(m.All())
			return differ(got, want, maps.Equal(got, want) && m.Len() == len(want))
		}
		u.add(60, func(i int) error {
			err := m.Set(i, -i)
			if err == nil {
				want[i] = -i
			}
			return err
		})
		u.add(30, func(i int) error {
			delete(want, 2*i)
			m.Delete(2 * i)
			return nil
		})
		u.add(1, func(int) error { return m.Reserve(400) })
		u.add(2, func(int) error {
			c, err := m.Clone()
			if err != nil {
				return err
			}
			got := maps.Collect(c.All())
			return errors.Join(differ(got, want, maps.Equal(got, want)), u.freed(c))
		})
		u.add(150, func(i int) error {
			p, _, err := m.Ensure(i)
			if err == nil {
				*p = 7
				want[i] = 7
			}
			return err
		})
		return u
	},
	"BytesMap": func(t *testing.T, mem blockalloc.Allocator) *user {
		m := newBytesMap[int](t, mem)
		u, want := &user{free: []func() error{m.Free}}, map[string]int{}
		collect := func(m *typed.BytesMap[int]) map[string]int {
			got := map[string]int{}
			for k, v := range m.All() {
				got[string(k)] = v
			}
			return got
		}
		u.check = func() error {
			got := collect(m)
			return differ(got, want, maps.Equal(got, want) && m.Len() == len(want))
		}
		set := func(i int) error {
			k := strings.Repeat("key", i%9) + fmt.Sprint(i)
			err := m.Set([]byte(k), i)
			if err == nil {
				want[k] = i
			}
			return err
		}
		u.add(60, set)
		u.add(1, func(int) error {
			for k := range want {
				if len(k) > 9 {
					m.Delete([]byte(k))
					delete(want, k)
				}
			}
			return nil
		})
		u.add(1, func(int) error { return m.Reserve(200, 4000) })
		u.add(2, func(int) error {
			c, err := m.Clone()
			if err != nil {
				return err
			}
			got := collect(c)
			return errors.Join(differ(got, want, maps.Equal(got, want)), u.freed(c))
		})
		u.add(120, set)
		return u
	},
	"Buffer, String": func(t *testing.T, mem blockalloc.Allocator) *user {
		b := typed.NewBuffer(mem)
		u, want := &user{free: []func() error{b.Free}}, []byte{}
		u.check = func() error { return differ(b.Bytes(), want, bytes.Equal(b.Bytes(), want)) }
		u.add(20, func(i int) error {
			p := bytes.Repeat([]byte{byte(i)}, i)
			n, err := b.Write(p)
			if want = append(want, p[:n]...); err == nil {
				want = want[len(b.Next(i/2)):]
			}
			return err
		})
		u.add(1, func(int) error {
			before := b.Len()
			defer func() { want = append(want, bytes.Repeat([]byte("x"), b.Len()-before)...) }() // what was read stays
			_, err := b.ReadFrom(strings.NewReader(strings.Repeat("x", 2000)))
			return err
		})
		u.add(1, func(int) error {
			s, err := b.TakeString()
			if err != nil {
				return err
			}
			u.free = append(u.free, func() error { return s.Free(mem) })
			err = differ(s.View(), string(want), s.View() == string(want))
			want = nil
			return errors.Join(err, s.Free(mem))
		})
		u.add(1, func(int) error {
			s, err := typed.NewString(mem, "word")
			u.free = append(u.free, func() error { return s.Free(mem) })
			return errors.Join(err, s.Free(mem))
		})
		return u
	},
	"Box": func(t *testing.T, mem blockalloc.Allocator) *user {
		u := &user{check: func() error { return nil }}
		u.add(2, func(i int) error {
			b, err := typed.NewBoxFunc(mem, func(p *int) error {
				if *p = 7; i == 1 {
					return errTired
				}
				return nil
			})
			u.free = append(u.free, b.Free)
			if err != nil && i == 0 || err == errTired {
				return nil
			}
			if err != nil {
				return err
			}
			_, err = b.Take()
			return errors.Join(err, u.freed(&b))
		})
		return u
	},
}

var errTired = errors.New("tired")

// faulty is an allocator of which some calls fail, or do not return, before they do
// anything.
type faulty struct {
	*alloctrace.Proxy
	calls, at int
	onwards   bool
	fault     func() error
}

func (f *faulty) call() error {
	if f.calls++; f.at > 0 && (f.calls == f.at || f.onwards && f.calls > f.at) {
		return f.fault()
	}
	return nil
}

func (f *faulty) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if err := f.call(); err != nil {
		return blockalloc.Block{}, err
	}
	return f.Proxy.Allocate(l)
}

func (f *faulty) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if err := f.call(); err != nil {
		return b, err
	}
	return f.Proxy.Reallocate(b, size)
}

func (f *faulty) Free(b blockalloc.Block) error {
	if b.IsZero() {
		return nil
	}
	if err := f.call(); err != nil {
		return err
	}
	return f.Proxy.Free(b)
}

// TestEveryFault: whichever call of the allocator fails, panics or ends the goroutine, alone
// or with all after it, a container is what it was, and no block is lost.
func TestEveryFault(t *testing.T) {
	faults := map[string]func() error{
		"fails":              func() error { return errInjected },
		"panics":             func() error { panic(errInjected) },
		"ends the goroutine": func() error { runtime.Goexit(); return nil },
	}
	for name, newUser := range users {
		calls := func(at int, onwards bool, fault func() error) (calls int, err error) {
			f := &faulty{Proxy: alloctrace.Wrap(new(blockalloc.Heap)), at: at, onwards: onwards, fault: fault}
			u := newUser(t, f)
			for _, step := range u.steps {
				stepErr := endured(step)
				if stepErr != nil && !errors.Is(stepErr, errInjected) {
					err = errors.Join(err, stepErr)
				}
				if stepErr != nil {
					err = errors.Join(err, u.check())
				}
			}
			err = errors.Join(err, u.check())
			for _, free := range u.free {
				_ = endured(free)
			}
			calls, f.at = f.calls, 0
			for _, free := range u.free {
				err = errors.Join(err, free())
			}
			if s := f.Stats(); s.LiveBlocks != 0 {
				err = errors.Join(err, fmt.Errorf("%d blocks are lost", s.LiveBlocks))
			}
			return calls, err
		}
		n, err := calls(0, false, nil)
		must(t, err)
		for what, fault := range faults {
			for at := 1; at <= n; at++ {
				if name == "Box" && at == n && what != "fails" {
					continue // what was not filled, and is not freed, has nobody to return it to
				}
				for _, onwards := range []bool{false, true} {
					if _, err := calls(at, onwards, fault); err != nil {
						t.Fatalf("%s: where call %d of %d %s, and all after it: %t: %v", name, at, n, what, onwards, err)
					}
				}
			}
		}
	}
}

// endured returns how step fails, also where it does not return.
func endured(step func() error) (err error) {
	done := make(chan struct{})
	err = errInjected
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil && r != any(errInjected) {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		err = step()
	}()
	<-done
	return err
}

// TestMapHashPanics: a hash function that panics while the map grows, or is cloned, loses
// nothing.
func TestMapHashPanics(t *testing.T) {
	a := newChecked(t)
	panics := 0
	hash := func(k int) uint64 {
		if panics--; panics == 0 {
			panic("tired")
		}
		return uint64(k)
	}
	m := typed.NewMapFunc[int, int](a, hash)
	for i := range 7 {
		must(t, m.Set(i, i))
	}
	live := a.live
	for _, op := range []func(){
		func() { _ = m.Set(7, 7) },
		func() { _ = m.Reserve(100) },
		func() { _, _ = m.Clone() },
	} {
		panics = 4
		wantPanic(t, "tired", op)
		if a.live != live || m.Len() != 7 {
			t.Errorf("%d blocks are live, and there are %d entries; want %d and 7", a.live, m.Len(), live)
		}
	}
	must(t, m.Free())
}
