package heapprofile

import (
	"cmp"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/alloctrace/alloctrace/internal/text"
)

// A line of a report shows so many calls of each stack, or as many more as tell it from another line.
const (
	callsShown    = 4
	maxCallsShown = 16
)

// shown returns how many calls the line of each stack shows: as many as make it unique, and callsShown
// at least. What is equal to another one within maxCallsShown is not told from that.
func shown(stacks [][]Frame) []int {
	list := make([]int, len(stacks))
	for i, a := range stacks {
		list[i] = callsShown
		for _, b := range stacks {
			if same := common(a, b); same < maxCallsShown && (same < len(a) || same < len(b)) {
				list[i] = max(list[i], same+1)
			}
		}
	}
	return list
}

// common returns how many of the innermost frames are the same.
func common(a, b []Frame) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func (f Frame) compare(g Frame) int {
	return cmp.Or(strings.Compare(f.Function, g.Function), strings.Compare(f.File, g.File), cmp.Compare(f.Line, g.Line))
}

// appendFrames appends a stack, so that others give something else.
func appendFrames(to []byte, stack []Frame) []byte {
	for _, f := range stack {
		to = strconv.AppendInt(appendText(appendText(to, f.Function), f.File), int64(f.Line), 10)
	}
	return to
}

// calls returns the innermost calls on one line, and how many there are besides: more than that
// if the stack was cut.
func calls(stack []Frame, most int, cut bool) string {
	if len(stack) == 0 {
		return "by unknown calls"
	}
	var list []string
	for _, f := range stack[:min(len(stack), max(most, callsShown))] {
		list = append(list, fmt.Sprintf("%s (%s:%d)", text.Line(path.Base(f.Function), text.MaxName), text.Line(path.Base(f.File), text.MaxName), f.Line))
	}
	line := strings.Join(list, ", ")
	switch more := int64(len(stack) - len(list)); {
	case cut:
		line += fmt.Sprintf(" and %d or more other calls", more)
	case more > 0:
		line += " and " + number(more, "more call")
	}
	return line
}

func number(n int64, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}
