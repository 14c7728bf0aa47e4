package typed_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

func newString(t testing.TB, a blockalloc.Allocator, text string) typed.String {
	t.Helper()
	s, err := typed.NewString(a, text)
	must(t, err)
	return s
}

func TestString(t *testing.T) {
	a := newChecked(t)
	for _, text := range []string{"", "a", "Grüße\x00\xff", strings.Repeat("long ", 5000)} {
		bytes := []byte(text)
		s, err := typed.NewString(a, bytes)
		must(t, err)
		clear(bytes)
		if s.View() != text || s.String() != text || s.Len() != len(text) || fmt.Sprint(s) != text {
			t.Errorf("the String is %q, %q, %d B; want %q", s.View(), s.String(), s.Len(), text)
		}
		copied := s.String()
		must(t, s.Free(a))
		if copied != text {
			t.Errorf("the copy became %q when the String was freed", copied)
		}
	}
	if unsafe.Sizeof(typed.String{}) != 3*unsafe.Sizeof(uintptr(0)) {
		t.Errorf("a String has %d bytes, want three words", unsafe.Sizeof(typed.String{}))
	}
}

func TestStringCompare(t *testing.T) {
	a := newChecked(t)
	texts := []string{"", "a", "a\x00", "ab", "b", "\xff"}
	for i, left := range texts {
		for j, right := range texts {
			l, r := newString(t, a, left), newString(t, a, right)
			if got, want := l.Compare(r), cmp.Compare(i, j); got != want {
				t.Errorf("%q compared with %q is %d, want %d", left, right, got, want)
			}
			must(t, l.Free(a))
			must(t, r.Free(a))
		}
	}
}

// TestStringsInVec: Strings are elements, which move with their Vec and are sorted
// there.
func TestStringsInVec(t *testing.T) {
	a := newChecked(t)
	v := newVec[typed.String](t, a)
	var want []string
	for i := range 1000 {
		text := fmt.Sprintf("%x", i*7919%1000)
		want = append(want, text)
		must(t, v.Append(newString(t, a, text)))
	}
	slices.Sort(want)
	slices.SortFunc(v.Slice(), typed.String.Compare)
	for i, s := range v.All() {
		if s.View() != want[i] {
			t.Fatalf("element %d is %q, want %q", i, s.View(), want[i])
		}
	}
	for i := range v.Slice() {
		must(t, v.Slice()[i].Free(a))
	}
	must(t, v.Free())
}

func TestStringFailures(t *testing.T) {
	everyFailure(t, func(a *checked) error {
		s, err := typed.NewString(a, "text")
		must(t, s.Free(a))
		return err
	})
	a := newChecked(t)
	s := newString(t, a, "text")
	a.free = errInjected
	if err := s.Free(a); err != errInjected || s.View() != "text" {
		t.Errorf("Free = %v, %q; want the allocator's error and no change", err, s.View())
	}
	a.free = nil
	if err := s.Free(blockalloc.Null{}); !errors.Is(err, blockalloc.ErrNotOwned) || s.View() != "text" {
		t.Errorf("Free with another allocator = %v, %q; want its error and no change", err, s.View())
	}
	must(t, s.Free(a))
}

func TestStringAfterFree(t *testing.T) {
	a := newChecked(t)
	for _, text := range []string{"text", ""} {
		s := newString(t, a, text)
		wantFreed(t, "String", func() error { return s.Free(a) }, map[string]func(){
			"View":    func() { s.View() },
			"String":  func() { _ = s.String() },
			"Len":     func() { s.Len() },
			"Compare": func() { s.Compare(typed.String{}) },
		})
	}
	var zero typed.String
	if zero.Len() != 0 || zero.View() != "" {
		t.Error("the zero String is not empty")
	}
	must(t, zero.Free(a))
	wantPanic(t, "String.Free(nil): pass an allocator", func() { zero.Free(nil) })
}

func TestStringAllocatesNothing(t *testing.T) {
	mem := newBump(t, 1<<20)
	wantAllocs(t, "NewString, View, Compare and Free", func() {
		s, err := typed.NewString(mem, "text")
		must(t, err)
		if s.View() != "text" || s.Compare(s) != 0 {
			t.Error("the String is not what it was made of")
		}
		must(t, s.Free(mem))
	})
}
