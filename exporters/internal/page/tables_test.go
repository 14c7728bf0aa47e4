package page

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// TestBook: who asks for the rest again and again has what the whole says, while others add to it, and numbers stay.
func TestBook(t *testing.T) {
	b := NewBook()
	if b.Text("") != 0 || b.Known() != (Known{Texts: 1}) {
		t.Errorf("a new book knows %+v", b.Known())
	}
	stack := func(i int) []Frame { return []Frame{{"f", "f.go", i % 7}, {fmt.Sprint("g", i%50), "g.go", 1}} }
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 500 {
				n := b.Site(fmt.Sprint("owner", i%3), stack(i), i%2 == 0)
				if again := b.Site(fmt.Sprint("owner", i%3), stack(i), false); again != n {
					t.Errorf("a site is %d and then %d", n, again)
				}
				if node := b.Node(b.Node(-1, "root"), fmt.Sprint("n", i%9)); b.Node(0, fmt.Sprint("n", i%9)) != node {
					t.Errorf("a node is not %d again", node)
				}
			}
		})
	}
	var have Tables
	for range 50 {
		have = joined(t, have, b.Tables(lengths(&have)))
	}
	all.Wait()
	have = joined(t, have, b.Tables(lengths(&have)))
	whole := b.Tables(Known{})
	if fmt.Sprint(have.Texts, have.Frames, have.Sites, have.Nodes) != fmt.Sprint(whole.Texts, whole.Frames, whole.Sites, whole.Nodes) || lengths(&have) != b.Known() {
		t.Errorf("bit by bit there is %+v, of %+v", lengths(&have), b.Known())
	}
	for site, calls := range have.Sites.Stack {
		owner := have.Texts[have.Sites.Owner[site]]
		var frames []Frame
		for _, f := range calls {
			frames = append(frames, Frame{have.Texts[have.Frames.Function[f]], have.Texts[have.Frames.File[f]], have.Frames.Line[f]})
		}
		if b.Site(owner, frames, false) != site {
			t.Errorf("site %d is %s %v, which is another", site, owner, frames)
		}
	}
	if len(have.Nodes.Parent) != 10 || len(whole.Sites.Owner) != 500 {
		t.Errorf("there are %d nodes and %d sites", len(have.Nodes.Parent), len(whole.Sites.Owner))
	}
	if rest := b.Tables(Known{1 << 20, 1 << 20, 1 << 20, 1 << 20}); rest.From != (Known{}) || len(rest.Texts) != len(whole.Texts) {
		t.Errorf("who knows more than there is gets what is after %+v", rest.From)
	}
}

func lengths(t *Tables) Known {
	return Known{len(t.Texts), len(t.Frames.Line), len(t.Sites.Owner), len(t.Nodes.Parent)}
}

// joined returns what somebody has who gets more.
func joined(t *testing.T, have Tables, more *Tables) Tables {
	t.Helper()
	if more.From != lengths(&have) {
		t.Fatalf("the rest after %+v is after %+v", lengths(&have), more.From)
	}
	have.Texts = append(have.Texts, more.Texts...)
	have.Frames = Frames{append(have.Frames.Function, more.Frames.Function...), append(have.Frames.File, more.Frames.File...), append(have.Frames.Line, more.Frames.Line...)}
	have.Sites = Sites{append(have.Sites.Owner, more.Sites.Owner...), append(have.Sites.Stack, more.Sites.Stack...), append(have.Sites.Cut, more.Sites.Cut...)}
	have.Nodes = Nodes{append(have.Nodes.Parent, more.Nodes.Parent...), append(have.Nodes.Name, more.Nodes.Name...)}
	return have
}

// TestBookIsBounded: names may be as many as there are requests, and any bytes.
func TestBookIsBounded(t *testing.T) {
	b := NewBook()
	root := b.Node(-1, "root")
	for i := range 3 * maxNodes {
		b.Node(root, fmt.Sprint(i))
	}
	other := b.Node(root, "one more")
	if n := b.Known().Nodes; n > maxNodes+1 || b.Node(root, "another") != other || b.Tables(Known{}).Texts[b.Tables(Known{}).Nodes.Name[other]] != others || b.Node(root, "5") == other {
		t.Errorf("there are %d nodes", n)
	}
	n := b.Text("\xff" + strings.Repeat("é", 4000))
	if s := b.Tables(Known{}).Texts[n]; !utf8.ValidString(s) || len(s) > 1<<10 {
		t.Errorf("a text of %d bytes: %.20q", len(s), s)
	}
}

// TestHistogram: blocks are in the class of their life, of which heapprofile.Lifetime makes a quantile.
func TestHistogram(t *testing.T) {
	var h Histogram
	for d, n := range map[time.Duration]int64{-1: 1, 0: 2, time.Microsecond: 4, time.Microsecond + 1: 8, 3 * time.Microsecond: 16, time.Second: 32, 1 << 62: 64} {
		h.Add(d, n)
	}
	want := make([]int64, lifetimeClasses)
	want[0], want[1], want[2], want[20], want[40] = 7, 8, 16, 32, 64
	if got := h.Counts(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if l := h.Lived(); l.Blocks != 127 || len(l.Times) != 5 || l.Times[3].Most != 1048576*time.Microsecond || l.Times[3].Blocks != 32 {
		t.Errorf("%+v", l)
	}
	if classes := LifetimeClasses(); classes[20] != 1<<20 || len(classes) != lifetimeClasses || len(new(Histogram).Counts()) != 0 {
		t.Errorf("the classes are %v", classes)
	}
}
