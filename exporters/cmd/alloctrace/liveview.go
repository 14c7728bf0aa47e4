package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/alloctrace/alloctrace/counter"
)

// A liveView is the moments of a program that are shown, and how.
type liveView struct {
	sites   bool // and not children
	sort    string
	reverse bool
	calls   int  // of a stack, as reading has it
	ascii   bool // the terminal has no other characters
	width   int  // columns of the terminal, or 0 without one

	now, before, mark *liveMoment
	values            map[bool]map[int][]int64 // live bytes of the last moments, by sites and number; all is a child with the number totalNumber
}

// sparkWidth is how many of the last moments a row shows.
const sparkWidth = 16

// A shownRow is a row with what needs two moments.
type shownRow struct {
	*liveRow
	change int64 // of live bytes since the mark
	rate   int64 // allocated bytes a second; -1 if it is not known
}

// A liveColumn is one of the table. Those of the largest rank go first where there is no room.
type liveColumn struct {
	name, key string
	width     int
	rank      int
	of        func(r *shownRow) string
	order     func(a, b *shownRow) int
}

var liveColumns = []liveColumn{
	{"live", "l", 10, 0, func(r *shownRow) string { return counter.FormatBytes(r.Live) }, func(a, b *shownRow) int { return cmp.Compare(b.Live, a.Live) }},
	{"change", "c", 11, 1, func(r *shownRow) string { return signedBytes(r.change) }, func(a, b *shownRow) int { return cmp.Compare(max(b.change, -b.change), max(a.change, -a.change)) }},
	{"alloc/s", "a", 10, 3, func(r *shownRow) string { return rateText(r.rate) }, func(a, b *shownRow) int { return cmp.Compare(b.rate, a.rate) }},
	{"blocks", "b", 9, 4, func(r *shownRow) string { return fmt.Sprint(r.Blocks) }, func(a, b *shownRow) int { return cmp.Compare(b.Blocks, a.Blocks) }},
	{"peak", "p", 10, 5, func(r *shownRow) string { return counter.FormatBytes(r.Peak) }, func(a, b *shownRow) int { return cmp.Compare(b.Peak, a.Peak) }},
	{"failed", "f", 7, 6, func(r *shownRow) string { return fmt.Sprint(r.Failures) }, func(a, b *shownRow) int { return cmp.Compare(b.Failures, a.Failures) }},
	{"name", "n", 0, 0, nil, func(a, b *shownRow) int { return strings.Compare(a.Name, b.Name) }},
}

const totalNumber = -1 // which no node has

const sparkRank = 2 // among columns, that of the last moments

func signedBytes(n int64) string {
	if n > 0 {
		return "+" + counter.FormatBytes(n)
	}
	return counter.FormatBytes(n)
}

func rateText(rate int64) string {
	if rate < 0 {
		return "-"
	}
	return counter.FormatBytes(rate)
}

// add shows another moment. One of another process begins anew; then it returns true.
func (v *liveView) add(m *liveMoment) (anew bool) {
	if v.now != nil && v.now.ID != m.ID {
		anew = true
		v.now, v.mark = nil, nil
	}
	if v.now == nil {
		v.values = map[bool]map[int][]int64{false: {}, true: {}}
		v.mark = m
	}
	v.before, v.now = v.now, m
	total := []liveRow{{Live: m.Total.Live, number: totalNumber}}
	for sites, rows := range map[bool][]liveRow{false: slices.Concat(total, m.Children), true: m.Sites} {
		seen := make(map[int]bool, len(rows))
		for i := range rows {
			n := rows[i].number
			seen[n] = true
			values := append(v.values[sites][n], rows[i].Live)
			v.values[sites][n] = values[max(0, len(values)-sparkWidth):]
		}
		for n := range v.values[sites] {
			if !seen[n] {
				delete(v.values[sites], n)
			}
		}
	}
	return anew
}

// rowsOf returns the rows of a moment that the view is of, by number.
func (v *liveView) rowsOf(m *liveMoment) map[int]*liveRow {
	rows := make(map[int]*liveRow)
	if m == nil {
		return rows
	}
	list := m.Children
	if v.sites {
		list = m.Sites
	}
	for i := range list {
		rows[list[i].number] = &list[i]
	}
	return rows
}

// rows returns the rows in order. A row that was there at the mark and is no more has no live bytes.
func (v *liveView) rows() (list []shownRow) {
	now, before, mark := v.rowsOf(v.now), v.rowsOf(v.before), v.rowsOf(v.mark)
	for n, r := range now {
		s := shownRow{liveRow: r, change: r.Live, rate: -1}
		if was := mark[n]; was != nil {
			s.change -= was.Live
		}
		if was := before[n]; was != nil {
			s.rate = v.rate(r.Allocated - was.Allocated)
		}
		list = append(list, s)
	}
	for n, was := range mark {
		if now[n] == nil {
			list = append(list, shownRow{liveRow: &liveRow{Name: was.Name, Stack: was.Stack, number: n}, change: -was.Live, rate: -1})
		}
	}
	order := liveColumns[slices.IndexFunc(liveColumns, func(c liveColumn) bool { return c.name == v.sort })].order
	slices.SortFunc(list, func(a, b shownRow) int {
		by := order(&a, &b)
		if v.reverse {
			by = -by
		}
		return cmp.Or(by, strings.Compare(a.Name, b.Name), a.number-b.number)
	})
	return list
}

// rate returns by how much something grows in a second that has grown by n between the last two moments.
func (v *liveView) rate(n int64) int64 {
	if v.before == nil {
		return -1
	}
	took := v.now.At.Sub(v.before.At)
	if took <= 0 || n < 0 {
		return -1
	}
	return int64(float64(n) / took.Seconds())
}

// columns returns those of the table that there is room for, and how much is left for names.
func (v *liveView) columns() (list []liveColumn, sparks bool, names int) {
	for rank := 9; ; rank-- {
		list, names = nil, v.width
		for _, c := range liveColumns {
			known := !v.sites || c.name != "peak" && c.name != "failed"
			if c.name == "change" || c.name == "alloc/s" {
				known = v.width > 0 || v.before != nil
			}
			if c.of != nil && c.rank <= rank && known {
				list = append(list, c)
				names -= c.width + 1
			}
		}
		sparks = v.width > 0 && rank >= sparkRank
		if sparks {
			names -= sparkWidth + 1
		}
		if names >= 24 || rank == 0 || v.width == 0 {
			return list, sparks, max(names, 1)
		}
	}
}

// head returns the lines above the table.
func (v *liveView) head() []string {
	m := v.now
	rate := "rate unknown"
	if v.before != nil {
		if n := v.rate(m.Total.Allocated - v.before.Total.Allocated); n >= 0 {
			rate = rateText(n) + "/s allocated"
		}
	}
	list := []string{
		fmt.Sprintf("%s, process %d, %s, %s", line(m.Title), m.PID, line(m.Go), date(m.At)),
		fmt.Sprintf("live %s in %s, peak %s, %s, %s", counter.FormatBytes(m.Total.Live), number(m.Total.Blocks, "block"), counter.FormatBytes(m.Total.Peak), rate, number(m.Total.Failures, "failure")),
	}
	switch {
	case v.sites && m.Rate > 1:
		list = append(list, fmt.Sprintf("sites are estimates: one block was sampled for %s", counter.FormatBytes(m.Rate)))
	case v.sites && m.Rate == 0 && len(m.Sites) == 0:
		list = append(list, "no sites are known: add heapprofile.New(heapprofile.Options{}) to the hooks of the Proxy")
	}
	return list
}

// header returns the names of columns.
func (v *liveView) header() string {
	columns, sparks, _ := v.columns()
	var b strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&b, "%*s ", c.width, v.marked(c.name))
	}
	if sparks {
		fmt.Fprintf(&b, "%-*s ", sparkWidth, "last")
	}
	if v.sites {
		b.WriteString(v.marked("name") + ": stack")
	} else {
		b.WriteString(v.marked("name"))
	}
	return b.String()
}

// marked returns the name of a column in capitals, with a mark if rows are sorted by it.
func (v *liveView) marked(name string) string {
	if name != v.sort {
		return strings.ToUpper(name)
	}
	return map[bool]string{false: "*", true: "^"}[v.reverse] + strings.ToUpper(name)
}

// row returns a line of the table.
func (v *liveView) row(r *shownRow) string {
	columns, sparks, names := v.columns()
	var b strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&b, "%*s ", c.width, c.of(r))
	}
	if sparks {
		fmt.Fprintf(&b, "%*s ", sparkWidth, v.sparks(v.values[v.sites][r.number]))
	}
	name := line(r.Name)
	if v.sites {
		reading := reading{calls: v.calls}
		name = strings.TrimPrefix(name+": "+reading.stackLine(r.Stack), ": ")
	}
	if v.width > 0 {
		name = v.fit(name, names)
	}
	b.WriteString(v.plain(name))
	return b.String()
}

func (v *liveView) sparks(values []int64) string {
	if len(values) == 0 {
		return ""
	}
	levels := sparkLevels
	if v.ascii {
		levels = " .:-=+*#@"
	}
	return sparksOf(values, slices.Max(values), levels)
}

// fit cuts a line to a width.
func (v *liveView) fit(s string, width int) string {
	tail := "…"
	if v.ascii {
		tail = ">"
	}
	return ansi.Truncate(v.plain(s), width, tail)
}

// plain returns s with the characters that the terminal has.
func (v *liveView) plain(s string) string {
	if !v.ascii {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, s)
}

// text returns what is printed without a terminal: so many rows, or all if it is less than 0.
func (v *liveView) text(most int) string {
	var b strings.Builder
	for _, l := range append(v.head(), v.header()) {
		b.WriteString(l + "\n")
	}
	rows := v.rows()
	shown := len(rows)
	if most >= 0 {
		shown = min(shown, most)
	}
	for i := range rows[:shown] {
		b.WriteString(v.row(&rows[i]) + "\n")
	}
	if more := len(rows) - shown; more > 0 {
		fmt.Fprintf(&b, "and %d more\n", more)
	}
	return b.String()
}

// ago writes how long ago the mark was.
func (v *liveView) ago() string { return v.now.At.Sub(v.mark.At).Round(time.Second).String() }
