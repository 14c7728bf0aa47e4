package page

import (
	"encoding/binary"
	"sync"

	"github.com/alloctrace/alloctrace/internal/text"
)

// A Book has the Tables of a page: it gives each text, frame, site and node a number, which it keeps. It may be used by several goroutines at once.
type Book struct {
	mu     sync.Mutex
	all    Tables
	texts  map[string]int
	frames map[Frame]int
	sites  map[string]int // by owner and frames
	nodes  map[node]int
	key    []byte
}

// A Frame is a function that was called, and where in it.
type Frame struct {
	Function, File string
	Line           int
}

type node struct {
	parent int
	name   string
}

// maxNodes is how many nodes a Book has: names of children may be those of requests. Further ones of a parent are one, named others.
const (
	maxNodes = 1000
	others   = "…"
)

// NewBook returns a Book that knows nothing but the text "", which is 0.
func NewBook() *Book {
	b := &Book{texts: make(map[string]int), frames: make(map[Frame]int), sites: make(map[string]int), nodes: make(map[node]int)}
	b.all = Tables{
		Texts:  []string{},
		Frames: Frames{[]int{}, []int{}, []int{}},
		Sites:  Sites{[]int{}, [][]int{}, []bool{}},
		Nodes:  Nodes{[]int{}, []int{}},
	}
	b.Text("")
	return b
}

// Text returns the number of a text, which it makes valid.
func (b *Book) Text(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text(s)
}

func (b *Book) text(s string) int {
	s = text.Name(s)
	n, ok := b.texts[s]
	if !ok {
		n = len(b.all.Texts)
		b.texts[s] = n
		b.all.Texts = append(b.all.Texts, s)
	}
	return n
}

// Site returns the number of the site of an owner and calls, the innermost first. Cut says that there may have been more.
func (b *Book) Site(owner string, stack []Frame, cut bool) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := b.text(owner)
	calls := make([]int, len(stack))
	b.key = binary.AppendUvarint(b.key[:0], uint64(of))
	for i, f := range stack {
		calls[i] = b.frame(f)
		b.key = binary.AppendUvarint(b.key, uint64(calls[i]))
	}
	n, ok := b.sites[string(b.key)]
	if !ok {
		n = len(b.all.Sites.Owner)
		b.sites[string(b.key)] = n
		s := &b.all.Sites
		s.Owner, s.Stack, s.Cut = append(s.Owner, of), append(s.Stack, calls), append(s.Cut, cut)
	}
	return n
}

// Frames returns the numbers of calls.
func (b *Book) Frames(stack []Frame) []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls := make([]int, len(stack))
	for i, f := range stack {
		calls[i] = b.frame(f)
	}
	return calls
}

func (b *Book) frame(f Frame) int {
	n, ok := b.frames[f]
	if !ok {
		t := &b.all.Frames
		n = len(t.Line)
		b.frames[f] = n
		t.Function, t.File, t.Line = append(t.Function, b.text(f.Function)), append(t.File, b.text(f.File)), append(t.Line, f.Line)
	}
	return n
}

// Node returns the number of the child of a node, or of a Proxy if parent is -1.
func (b *Book) Node(parent int, name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := node{parent, text.Name(name)}
	if n, ok := b.nodes[at]; ok {
		return n
	}
	if len(b.nodes) >= maxNodes {
		at.name = others
		if n, ok := b.nodes[at]; ok {
			return n
		}
	}
	n := len(b.all.Nodes.Parent)
	b.nodes[at] = n
	b.all.Nodes.Parent, b.all.Nodes.Name = append(b.all.Nodes.Parent, parent), append(b.all.Nodes.Name, b.text(at.name))
	return n
}

// Known returns how long the Tables are.
func (b *Book) Known() Known {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Known{len(b.all.Texts), len(b.all.Frames.Line), len(b.all.Sites.Owner), len(b.all.Nodes.Parent)}
}

// Tables returns what comes after what somebody knows. What is returned is not changed any more.
func (b *Book) Tables(known Known) *Tables {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.all
	known.Texts, t.Texts = after(t.Texts, known.Texts)
	known.Frames, t.Frames.Function = after(t.Frames.Function, known.Frames)
	_, t.Frames.File = after(t.Frames.File, known.Frames)
	_, t.Frames.Line = after(t.Frames.Line, known.Frames)
	known.Sites, t.Sites.Owner = after(t.Sites.Owner, known.Sites)
	_, t.Sites.Stack = after(t.Sites.Stack, known.Sites)
	_, t.Sites.Cut = after(t.Sites.Cut, known.Sites)
	known.Nodes, t.Nodes.Parent = after(t.Nodes.Parent, known.Nodes)
	_, t.Nodes.Name = after(t.Nodes.Name, known.Nodes)
	t.From = known
	return &t
}

// after returns what comes after the first n, or all if there are fewer.
func after[T any](list []T, n int) (from int, rest []T) {
	if n > len(list) {
		n = 0
	}
	return n, list[n:len(list):len(list)]
}
