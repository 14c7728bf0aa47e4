package main

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// newMonitor returns a monitor of a program whose cache has grown from 1 to 4 MiB in a second.
func newMonitor(width, height int, ascii bool) *monitor {
	at := time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)
	moment := func(seconds int, cache int64) *liveMoment {
		m := &liveMoment{ID: "a", Title: "server", PID: 4711, Go: "go1.26.8", At: at.Add(time.Duration(seconds) * time.Second)}
		m.Total = liveRow{Live: cache + 1<<20, Blocks: 10, Peak: 5 << 20, Allocated: 2 * cache}
		m.Children = []liveRow{
			{Name: "app", Live: cache + 1<<20, Blocks: 10, Peak: 5 << 20, Allocated: 2 * cache, number: 0},
			{Name: "app/cache", Live: cache, Blocks: 9, Peak: cache, Allocated: 2 * cache, number: 1},
			{Name: "app/日本語 index", Live: 1 << 20, Blocks: 1, Peak: 1 << 20, Allocated: 1 << 20, Failures: 3, number: 2},
		}
		m.Sites = []liveRow{{Name: "cache", Live: cache, Blocks: 9, Allocated: 2 * cache, number: 0}}
		return m
	}
	m := &monitor{view: &liveView{sort: "live", calls: 8, ascii: ascii}, width: width, height: height}
	m.view.add(moment(0, 1<<20))
	m.view.add(moment(1, 4<<20))
	return m
}

// shown returns what is on the screen after some keys.
func (m *monitor) shown(keys ...string) string {
	for _, key := range keys {
		m.press(key)
	}
	var b strings.Builder
	for line := range strings.Lines(ansi.Strip(m.View().Content)) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

// TestMonitor: the screen is as it was, and fits into terminals.
func TestMonitor(t *testing.T) {
	for name, test := range map[string]struct {
		m    *monitor
		keys []string
		want string
	}{
		"wide": {newMonitor(110, 9, false), nil, `
server, process 4711, go1.26.8, 2026-11-30 06:00:01.000 UTC
live 5 MiB in 10 blocks, peak 5 MiB, 6 MiB/s allocated, 0 failures  ▃█
change since 1s ago
     *LIVE      CHANGE    ALLOC/S    BLOCKS       PEAK  FAILED last             NAME
     5 MiB      +3 MiB      6 MiB        10      5 MiB       0               ▃█ app
     4 MiB      +3 MiB      6 MiB         9      4 MiB       0               ▂█ app/cache
     1 MiB         0 B        0 B         1      1 MiB       3               ██ app/日本語 index

q leave  tab sites/children  l c a b p f n sort  r reverse  m mark  space pause  enter stack
`},
		"narrow": {newMonitor(60, 8, false), []string{"n", "r"}, `
server, process 4711, go1.26.8, 2026-11-30 06:00:01.000 UTC
live 5 MiB in 10 blocks, peak 5 MiB, 6 MiB/s allocated, 0 fa
change since 1s ago
      LIVE      CHANGE ^NAME
     1 MiB         0 B app/日本語 index
     4 MiB      +3 MiB app/cache
     5 MiB      +3 MiB app
q leave  tab sites/children  l c a b p f n sort  r reverse
`},
		"without Unicode": {newMonitor(30, 6, true), []string{"m", "f"}, `
server, process 4711, go1.26.>
live 5 MiB in 10 blocks, peak
change since 0s ago
      LIVE NAME
     1 MiB app/??? index
q leave  tab sites/children  l
`},
		"sites": {newMonitor(80, 7, true), []string{"tab", ">", "space"}, `
server, process 4711, go1.26.8, 2026-11-30 06:00:01.000 UTC
live 5 MiB in 10 blocks, peak 5 MiB, 6 MiB/s allocated, 0 failures  -@
paused, change since 1s ago
      LIVE     *CHANGE    ALLOC/S last             NAME: stack
     4 MiB      +3 MiB      6 MiB               :@ cache: unknown

q leave  tab sites/children  l c a b p f n sort  r reverse  m mark  space pause
`},
		"stack": {newMonitor(60, 6, false), []string{"down", "enter"}, `
server, process 4711, go1.26.8, 2026-11-30 06:00:01.000 UTC
live 5 MiB in 10 blocks, peak 5 MiB, 6 MiB/s allocated, 0 fa
change since 1s ago
app/cache, change +3 MiB, in 9 blocks

q leave  tab sites/children  l c a b p f n sort  r reverse
`},
	} {
		if got := "\n" + test.m.shown(test.keys...); got != test.want {
			t.Errorf("%s:%s\nwant%s", name, got, test.want)
		}
	}
	for width := range 40 {
		for height := range 12 {
			m := newMonitor(width, height, false)
			lines := strings.Split(m.View().Content, "\n")
			if len(lines) > max(1, height) {
				t.Fatalf("%d lines in %d", len(lines), height)
			}
			for _, l := range lines {
				if ansi.StringWidth(l) > width {
					t.Fatalf("%q is wider than %d", l, width)
				}
			}
		}
	}
}

// TestMonitorKeys: keys move, sort, mark and leave, and none is lost beyond an end.
func TestMonitorKeys(t *testing.T) {
	m := newMonitor(110, 7, false)
	for _, test := range []struct {
		key            string
		cursor, first  int
		sort           string
		reverse, sites bool
	}{
		{"up", 0, 0, "live", false, false}, {"down", 1, 0, "live", false, false}, {"j", 2, 1, "live", false, false}, {"j", 2, 1, "live", false, false}, {"k", 1, 1, "live", false, false},
		{"home", 0, 0, "live", false, false}, {"end", 2, 1, "live", false, false}, {"pgup", 0, 0, "live", false, false}, {"pgdown", 2, 1, "live", false, false}, {"left", 2, 1, "name", false, false},
		{"right", 2, 1, "live", false, false}, {"r", 2, 1, "live", true, false}, {"c", 2, 1, "change", false, false}, {"s", 0, 0, "change", false, true}, {"x", 0, 0, "change", false, true},
	} {
		m.shown(test.key)
		if m.cursor != test.cursor || m.first != test.first || m.view.sort != test.sort || m.view.reverse != test.reverse || m.view.sites != test.sites {
			t.Errorf("after %s: row %d from %d on, by %s, %v, %v; want %+v", test.key, m.cursor, m.first, m.view.sort, m.view.reverse, m.view.sites, test)
		}
	}
	if m.press("enter") || !m.detail || m.press("esc") || m.detail || !m.press("esc") || !m.press("q") || !m.press("ctrl+c") {
		t.Error("esc leaves the stack, then the program, and q and ctrl+c do")
	}
	if m.shown("m"); m.view.mark != m.view.now {
		t.Error("m marks nothing")
	}
}

// TestMonitorAnswers: what goes wrong is on the screen until it does not any more, and another process begins anew.
func TestMonitorAnswers(t *testing.T) {
	m := newMonitor(110, 7, false)
	before := m.view.now
	next := func(id string, live int64) *liveMoment {
		after := *m.view.now
		after.ID, after.At, after.Total.Live = id, after.At.Add(time.Second), live
		return &after
	}
	for _, test := range []struct {
		answered
		paused bool
		want   string
		live   int64
	}{
		{answered{nil, &url.Error{Op: "Get", URL: "x", Err: errors.New("connection\nrefused")}}, false, `no answer (1): connection\nrefused  change since`, 5 << 20},
		{answered{nil, errors.New("no")}, true, `no answer (2): no  paused, change since`, 5 << 20},
		{answered{next("a", 7), nil}, true, "paused, change since 1s ago\n", 5 << 20},
		{answered{next("a", 8), nil}, false, "\nchange since 2s ago\n", 8},
		{answered{next("b", 9), nil}, false, "\nthe program was started anew: change counts from here  change since 0s ago\n", 9},
		{answered{next("b", 10), nil}, false, "\nthe program was started anew: ", 10},
	} {
		m.paused = test.paused
		if _, cmd := m.Update(test.answered); cmd == nil {
			t.Fatal("it does not ask again")
		}
		if got := m.shown(); !strings.Contains(got, test.want) || m.view.now.Total.Live != test.live {
			t.Errorf("%s\nwant %q and %d live, not %d", got, test.want, test.live, m.view.now.Total.Live)
		}
	}
	if got := m.shown("down"); strings.Contains(got, "anew") || before == m.view.mark {
		t.Errorf("%s", got)
	}
	m.Update(tea.WindowSizeMsg{Width: 20, Height: 5})
	if m.width != 20 || m.height != 5 {
		t.Errorf("%d by %d", m.width, m.height)
	}
}

// TestMonitorFollows: the selected row stays so where it moves to.
func TestMonitorFollows(t *testing.T) {
	m := newMonitor(110, 9, false)
	m.shown("down")
	after := *m.view.now
	after.Children = slices.Clone(after.Children)
	after.Children[1].Live = 1
	m.Update(answered{&after, nil})
	if rows := m.view.rows(); m.cursor != 2 || rows[m.cursor].Name != "app/cache" {
		t.Errorf("row %d, %q is selected", m.cursor, rows[m.cursor].Name)
	}
}

// TestMonitorEdges: an answer may come before the screen is drawn, whatever key was the last one.
func TestMonitorEdges(t *testing.T) {
	for _, key := range []string{"up", "pgup", "down", "pgdown", "end"} {
		m := newMonitor(110, 9, false)
		for range 3 {
			m.press(key)
		}
		less := *m.view.now
		less.Children = less.Children[:1]
		m.answer(answered{moment: &less})
		if n := len(m.view.rows()); m.cursor < 0 || m.cursor >= n {
			t.Errorf("after %s, row %d of %d is selected", key, m.cursor, n)
		}
	}
}

// TestHasUnicode: the first variable that is set says what the terminal shows.
func TestHasUnicode(t *testing.T) {
	for want, environments := range map[bool][]map[string]string{
		true:  {{"LANG": "C.UTF-8"}, {"LC_ALL": "de_DE.utf8", "LANG": "C"}, {"LC_CTYPE": "en_US.UTF-8", "LANG": "C"}},
		false: {{"LANG": "C"}, {"LC_ALL": "POSIX", "LANG": "C.UTF-8"}, {"LANG": "de_DE.ISO-8859-1"}},
	} {
		for _, e := range environments {
			if got := hasUnicode(func(name string) string { return e[name] }); got != want {
				t.Errorf("%v: %v", e, got)
			}
		}
	}
}
