package typed_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

func ExampleVec() {
	v := typed.NewVec[uint32](blockalloc.Default())
	defer v.Free()
	if err := v.Append(30, 10, 20); err != nil {
		log.Fatal(err) // out of memory: v is what it was
	}
	if err := v.Insert(1, 40, 50); err != nil {
		log.Fatal(err)
	}
	slices.Sort(v.Slice())
	for i, x := range v.All() {
		fmt.Print(i, ":", x, " ")
	}
	// Output: 0:10 1:20 2:30 3:40 4:50
}

// The functions of package slices work on Slice. What they shorten, Truncate
// shortens in the Vec.
func ExampleVec_Truncate() {
	v := typed.NewVec[int](blockalloc.Default())
	defer v.Free()
	if err := v.Append(1, 1, 2, 3, 3, 3, 4); err != nil {
		log.Fatal(err)
	}
	v.Truncate(len(slices.Compact(v.Slice())))
	fmt.Println(v.Slice())
	// Output: [1 2 3 4]
}

func ExampleNewVec_pointers() {
	type user struct {
		ID    uint64
		Names [2]string
	}
	defer func() { fmt.Println(recover()) }()
	typed.NewVec[user](blockalloc.Default())
	// Output: blockalloc/typed: NewVec of typed_test.user: type holds Go pointers: Names[] is a string: the garbage collector does not look into blocks: store an index, an offset or a typed.String
}

func ExampleBox() {
	type point struct{ X, Y float64 }
	b, err := typed.NewBox(blockalloc.Default(), point{1, 2})
	if err != nil {
		log.Fatal(err)
	}
	b.Pointer().X = 3
	p, err := b.Take() // and the Box is free
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p)
	// Output: {3 2}
}

// A large value is filled in where it stays. If that fails, its place is freed.
func ExampleNewBoxFunc() {
	const text = "only this, and nothing more"
	read := func(page *[1 << 16]byte) error {
		_, err := io.ReadFull(strings.NewReader(text), page[:])
		return err
	}
	_, err := typed.NewBoxFunc(blockalloc.Default(), read)
	fmt.Println(err)
	// Output: unexpected EOF
}

// Strings hold no Go pointers, so that they can be elements. They are freed before
// what they are in.
func ExampleString() {
	mem := blockalloc.Default()
	v := typed.NewVec[typed.String](mem)
	for _, name := range []string{"pear", "apple", "fig"} {
		s, err := typed.NewString(mem, name)
		if err == nil {
			err = v.Append(s)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	slices.SortFunc(v.Slice(), typed.String.Compare)
	for i := range v.Slice() {
		fmt.Println(v.Slice()[i])
		if err := v.Slice()[i].Free(mem); err != nil {
			log.Fatal(err)
		}
	}
	if err := v.Free(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// apple
	// fig
	// pear
}

func ExampleBuffer() {
	b := typed.NewBuffer(blockalloc.Default())
	defer b.Free()
	for i := range 3 {
		if _, err := fmt.Fprintf(b, "line %d\n", i); err != nil {
			log.Fatal(err) // out of memory: b is what it was
		}
	}
	lines := bufio.NewScanner(b)
	for lines.Scan() {
		fmt.Println(lines.Text())
	}
	// Output:
	// line 0
	// line 1
	// line 2
}

// A String is built in a Buffer, which then has nothing more of it.
func ExampleBuffer_TakeString() {
	mem := blockalloc.Default()
	b := typed.NewBuffer(mem)
	defer b.Free()
	fmt.Fprintf(b, "%d bytes of ", 42)
	b.WriteString("text\n")
	s, err := b.TakeString()
	if err != nil {
		log.Fatal(err)
	}
	defer s.Free(mem)
	io.WriteString(os.Stdout, s.View())
	fmt.Println(b.Len(), "bytes are left")
	// Output:
	// 42 bytes of text
	// 0 bytes are left
}

// Pages of a file by their number, outside the Go heap.
func ExampleMap() {
	type page struct{ Offset, Size uint32 }
	pages := typed.NewMap[uint64, page](blockalloc.Default())
	defer pages.Free()
	for i := range uint64(5) {
		if err := pages.Set(100+i, page{uint32(i) << 12, 4096}); err != nil {
			log.Fatal(err) // no memory: the map holds what it held
		}
	}
	pages.Ptr(102).Size = 17 // in place
	for number, p := range pages.All() {
		if p.Size == 4096 {
			pages.Delete(number)
		}
	}
	p, ok := pages.Get(102)
	fmt.Println(pages.Len(), p, ok)
	// Output: 1 {8192 17} true
}

// How often each word occurs. The words are kept by the map.
func ExampleBytesMap() {
	words := typed.NewBytesMap[int](blockalloc.Default())
	defer words.Free()
	for _, word := range bytes.Fields([]byte("the cat and the dog and the bird")) {
		n, _, err := words.Ensure(word)
		if err != nil {
			log.Fatal(err)
		}
		*n++
	}
	for word, n := range words.All() {
		fmt.Printf("%s %d\n", word, n)
	}
	// Output:
	// the 3
	// cat 1
	// and 2
	// dog 1
	// bird 1
}
