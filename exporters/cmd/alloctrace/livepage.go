package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
)

// A livePage asks a program's page of exporters/debugpage for its numbers. One goroutine may use it.
type livePage struct {
	base   string // with a / at its end
	shown  string // the same without a password
	client http.Client
	page   pageAnswer
	tables pageTables
}

// maxAnswer is how many bytes an answer may have.
const maxAnswer = 256 << 20

// What of the page's answers is used: names and units are those of debugpage.
type (
	pageAnswer struct {
		ID      string `json:"id"`
		Title   string `json:"title"`
		Go      string `json:"go"`
		PID     int    `json:"pid"`
		BeganMS int64  `json:"began_ms"`
		Rate    int64  `json:"rate"`
	}

	pageKnown struct {
		Texts  int `json:"texts"`
		Frames int `json:"frames"`
		Sites  int `json:"sites"`
		Nodes  int `json:"nodes"`
	}

	pageTables struct {
		From   pageKnown `json:"from"`
		Texts  []string  `json:"texts"`
		Frames struct {
			Function []int `json:"function"`
			File     []int `json:"file"`
			Line     []int `json:"line"`
		} `json:"frames"`
		Sites struct {
			Owner []int   `json:"owner"`
			Stack [][]int `json:"stack"`
		} `json:"sites"`
		Nodes struct {
			Parent []int `json:"parent"`
			Name   []int `json:"name"`
		} `json:"nodes"`
	}

	// T is a number or a column.
	pageStats[T any] struct {
		Live                T `json:"live"`
		LiveBlocks          T `json:"live_blocks"`
		Peak                T `json:"peak"`
		Allocated           T `json:"allocated"`
		FailedAllocations   T `json:"failed_allocations"`
		FailedReallocations T `json:"failed_reallocations"`
		FailedFrees         T `json:"failed_frees"`
	}

	pageSnapshot struct {
		Known pageKnown        `json:"known"`
		AtUS  int64            `json:"at_us"`
		Total pageStats[int64] `json:"total"`
		Nodes struct {
			Node []int `json:"node"`
			pageStats[[]int64]
		} `json:"nodes"`
		Sites struct {
			Site       []int   `json:"site"`
			Live       []int64 `json:"live"`
			LiveBlocks []int64 `json:"live_blocks"`
			Allocated  []int64 `json:"allocated"`
		} `json:"sites"`
	}
)

// A liveMoment is what a program holds.
type liveMoment struct {
	ID       string    `json:"-"` // of the process
	Title    string    `json:"title"`
	PID      int       `json:"pid"`
	Go       string    `json:"go"`
	Rate     int64     `json:"rate"` // one block was sampled for so many bytes: sites are estimates if it is more than 1
	At       time.Time `json:"at"`
	Total    liveRow   `json:"total"`
	Children []liveRow `json:"children"` // of all Proxies; a row has what is of its children too
	Sites    []liveRow `json:"sites"`
}

// A liveRow is a Proxy, a child or a site.
type liveRow struct {
	Name      string            `json:"name,omitempty"` // names from the Proxy on, with / between them; of a site, its owner
	Stack     []recording.Frame `json:"stack,omitempty"`
	Live      int64             `json:"live"`
	Blocks    int64             `json:"blocks"`
	Peak      int64             `json:"peak,omitempty"`
	Allocated int64             `json:"allocated"`
	Failures  int64             `json:"failures,omitempty"`
	number    int               // of the node or the site
}

// isPage reports whether an argument is the URL of a page, and not a file.
func isPage(arg string) bool {
	return strings.HasPrefix(arg, "http://") || strings.HasPrefix(arg, "https://")
}

func newLivePage(at string) (*livePage, error) {
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q: use the URL of a program's page, such as http://localhost:6060/debug/alloctrace/", at)
	}
	u.RawQuery, u.ForceQuery, u.Fragment = "", false, ""
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return &livePage{base: u.String(), shown: u.Redacted(), client: http.Client{Timeout: 30 * time.Second}}, nil
}

// moment returns what the program holds now.
func (p *livePage) moment(ctx context.Context) (*liveMoment, error) {
	var page pageAnswer
	if err := p.get(ctx, "api/page", &page); err != nil {
		return nil, err
	}
	if page.ID != p.page.ID {
		p.tables = pageTables{}
	}
	p.page = page
	var s pageSnapshot
	if err := p.get(ctx, "api/snapshot", &s); err != nil {
		return nil, err
	}
	if err := p.know(ctx, s.Known); err != nil {
		return nil, err
	}
	t := &s.Total
	m := &liveMoment{
		ID: page.ID, Title: page.Title, PID: page.PID, Go: page.Go, Rate: page.Rate, At: time.UnixMilli(page.BeganMS).Add(time.Duration(s.AtUS) * time.Microsecond).UTC(),
		Total:    liveRow{Live: t.Live, Blocks: t.LiveBlocks, Peak: t.Peak, Allocated: t.Allocated, Failures: t.FailedAllocations + t.FailedReallocations + t.FailedFrees},
		Children: []liveRow{}, Sites: []liveRow{},
	}
	n := &s.Nodes
	for i, node := range n.Node {
		if !has(i, n.Live, n.LiveBlocks, n.Peak, n.Allocated, n.FailedAllocations, n.FailedReallocations, n.FailedFrees) {
			return nil, fmt.Errorf("%sapi/snapshot: its columns differ in length", p.shown)
		}
		m.Children = append(m.Children, liveRow{
			Name: p.node(node), Live: n.Live[i], Blocks: n.LiveBlocks[i], Peak: n.Peak[i], Allocated: n.Allocated[i],
			Failures: n.FailedAllocations[i] + n.FailedReallocations[i] + n.FailedFrees[i], number: node,
		})
	}
	for i, site := range s.Sites.Site {
		if !has(i, s.Sites.Live, s.Sites.LiveBlocks, s.Sites.Allocated) {
			return nil, fmt.Errorf("%sapi/snapshot: its columns differ in length", p.shown)
		}
		owner, stack := p.site(site)
		m.Sites = append(m.Sites, liveRow{Name: owner, Stack: stack, Live: s.Sites.Live[i], Blocks: s.Sites.LiveBlocks[i], Allocated: s.Sites.Allocated[i], number: site})
	}
	return m, nil
}

// has reports whether all columns have a row.
func has(row int, columns ...[]int64) bool {
	for _, c := range columns {
		if row >= len(c) {
			return false
		}
	}
	return true
}

// know gets what of the tables is not known yet.
func (p *livePage) know(ctx context.Context, want pageKnown) error {
	t := &p.tables
	have := pageKnown{len(t.Texts), len(t.Frames.Function), len(t.Sites.Owner), len(t.Nodes.Name)}
	if want.Texts <= have.Texts && want.Frames <= have.Frames && want.Sites <= have.Sites && want.Nodes <= have.Nodes {
		return nil
	}
	var more pageTables
	if err := p.get(ctx, fmt.Sprintf("api/tables?sites=%d&texts=%d&frames=%d&nodes=%d", have.Sites, have.Texts, have.Frames, have.Nodes), &more); err != nil {
		return err
	}
	if more.From != have {
		return fmt.Errorf("%sapi/tables: it begins at %+v, and not at %+v", p.shown, more.From, have)
	}
	t.Texts = append(t.Texts, more.Texts...)
	t.Frames.Function, t.Frames.File, t.Frames.Line = append(t.Frames.Function, more.Frames.Function...), append(t.Frames.File, more.Frames.File...), append(t.Frames.Line, more.Frames.Line...)
	t.Sites.Owner, t.Sites.Stack = append(t.Sites.Owner, more.Sites.Owner...), append(t.Sites.Stack, more.Sites.Stack...)
	t.Nodes.Parent, t.Nodes.Name = append(t.Nodes.Parent, more.Nodes.Parent...), append(t.Nodes.Name, more.Nodes.Name...)
	return nil
}

// at returns an element, or the zero value where there is none.
func at[T any](list []T, i int) (v T) {
	if 0 <= i && i < len(list) {
		v = list[i]
	}
	return v
}

// node returns the names of a node and those above it.
func (p *livePage) node(n int) string {
	t := &p.tables
	var names []string
	for ; 0 <= n && n < len(t.Nodes.Name); n = at(t.Nodes.Parent, n) {
		name := at(t.Texts, t.Nodes.Name[n])
		if name == "" {
			name = "(no name)"
		}
		names = append([]string{name}, names...)
		if at(t.Nodes.Parent, n) >= n { // a parent comes first
			break
		}
	}
	return strings.Join(names, "/")
}

func (p *livePage) site(n int) (owner string, stack []recording.Frame) {
	t := &p.tables
	for _, f := range at(t.Sites.Stack, n) {
		stack = append(stack, recording.Frame{Function: at(t.Texts, at(t.Frames.Function, f)), File: at(t.Texts, at(t.Frames.File, f)), Line: at(t.Frames.Line, f)})
	}
	return at(t.Texts, at(t.Sites.Owner, n)), stack
}

// get decodes an answer.
func (p *livePage) get(ctx context.Context, name string, to any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+name, nil)
	if err != nil {
		return err
	}
	answer, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body := io.LimitReader(answer.Body, maxAnswer)
	if answer.StatusCode != http.StatusOK {
		var failure struct {
			Error string `json:"error"`
		}
		if json.NewDecoder(body).Decode(&failure) != nil || failure.Error == "" {
			failure.Error = "is this the URL of a page of exporters/debugpage?"
		}
		return fmt.Errorf("%s%s: %s: %s", p.shown, name, line(answer.Status), line(failure.Error))
	}
	if err := json.NewDecoder(body).Decode(to); err != nil {
		return fmt.Errorf("%s%s: %w: is this the URL of a page of exporters/debugpage?", p.shown, name, err)
	}
	return nil
}
