package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/alloctrace/alloctrace/exporters/recording"
)

// A monitor shows a program in a terminal, until it is left by a key.
type monitor struct {
	view     *liveView
	ask      func() (*liveMoment, error)
	interval time.Duration

	width, height int
	cursor, first int  // rows: the selected one, and the first on the screen
	paused        bool // what is answered is not shown
	detail        bool // the stack of the selected row is shown, and not the table
	tries         int  // without an answer
	problem       string
}

type (
	answered struct {
		moment *liveMoment
		err    error
	}
	askAgain struct{}
)

// monitorProgram shows view, which has a moment, and asks for others.
func monitorProgram(ctx context.Context, page *livePage, view *liveView, interval time.Duration, out io.Writer) error {
	view.ascii = !hasUnicode(os.Getenv)
	m := &monitor{view: view, interval: interval, width: 80, height: 24, ask: func() (*liveMoment, error) { return page.moment(ctx) }}
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithOutput(out)).Run()
	return err
}

// hasUnicode reports whether the terminal shows what is not ASCII, by the environment.
func hasUnicode(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(getenv(name)); locale != "" {
			return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
		}
	}
	return runtime.GOOS == "windows"
}

func (m *monitor) Init() tea.Cmd { return m.later() }

func (m *monitor) later() tea.Cmd {
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return askAgain{} })
}

func (m *monitor) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case askAgain:
		return m, func() tea.Msg { // in a goroutine, of which there is one: it is asked again after the answer
			moment, err := m.ask()
			return answered{moment, err}
		}
	case answered:
		m.answer(message)
		return m, m.later()
	case tea.KeyPressMsg:
		if quit := m.press(message.String()); quit {
			return m, tea.Quit
		}
	}
	return m, nil
}

func (m *monitor) answer(a answered) {
	if rows := m.view.rows(); len(rows) > 0 { // the row stays selected where it moves to
		selected := rows[m.cursor].number
		defer func() {
			rows := m.view.rows()
			if i := slices.IndexFunc(rows, func(r shownRow) bool { return r.number == selected }); i >= 0 {
				m.cursor = i
			}
			m.cursor = max(0, min(m.cursor, len(rows)-1))
		}()
	}
	switch {
	case a.err != nil:
		m.tries++
		err := a.err
		var of *url.Error
		if errors.As(err, &of) { // which repeats the URL
			err = of.Err
		}
		m.problem = fmt.Sprintf("no answer (%d): %v", m.tries, err)
		return
	case !m.paused && m.view.add(a.moment):
		m.problem = "the program was started anew: change counts from here"
	case m.tries > 0:
		m.problem = ""
	}
	m.tries = 0
}

// press does what a key is for, and reports whether that is to leave.
func (m *monitor) press(key string) (quit bool) {
	if m.tries == 0 {
		m.problem = ""
	}
	switch key {
	case "q", "ctrl+c":
		return true
	case "esc":
		quit, m.detail = !m.detail, false
		return quit
	case "enter":
		m.detail = !m.detail
	case "tab", "s":
		m.view.sites, m.detail = !m.view.sites, false
		m.cursor, m.first = 0, 0
	case "m":
		m.view.mark = m.view.now
	case "space":
		m.paused = !m.paused
	case "r":
		m.view.reverse = !m.view.reverse
	case "up", "k":
		m.cursor--
	case "down", "j":
		m.cursor++
	case "pgup":
		m.cursor -= m.room()
	case "pgdown":
		m.cursor += m.room()
	case "home", "g":
		m.cursor = 0
	case "end", "G":
		m.cursor = len(m.view.rows()) - 1
	case "left", "<":
		m.sortBy(-1)
	case "right", ">":
		m.sortBy(1)
	default:
		for _, c := range liveColumns {
			if c.key == key {
				m.view.sort, m.view.reverse = c.name, false
			}
		}
	}
	m.cursor = max(0, min(m.cursor, len(m.view.rows())-1))
	return false
}

// sortBy sorts by the column to the left or right.
func (m *monitor) sortBy(step int) {
	for i, c := range liveColumns {
		if c.name == m.view.sort {
			m.view.sort = liveColumns[(i+step+len(liveColumns))%len(liveColumns)].name
			return
		}
	}
}

// room returns how many rows the table has on the screen.
func (m *monitor) room() int { return max(1, m.height-len(m.view.head())-3) }

const keys = "q leave  tab sites/children  l c a b p f n sort  r reverse  m mark  space pause  enter stack"

func (m *monitor) View() tea.View {
	m.view.width = m.width
	bold := ansi.Style{}.Bold()
	lines := m.view.head()
	lines[0] = bold.Styled(m.view.fit(lines[0], m.width))
	lines[1] += "  " + m.view.sparks(m.view.values[false][totalNumber])
	rows := m.view.rows()
	lines = append(lines, m.state())
	if m.detail && len(rows) > 0 {
		lines = append(lines, m.details(&rows[m.cursor])...)
	} else {
		lines = append(lines, ansi.Style{}.Underline(true).Styled(ansi.Truncate(m.view.header(), m.width, "")))
		room := m.room()
		m.first = max(min(m.first, m.cursor, len(rows)-room), m.cursor-room+1, 0)
		for i := m.first; i < min(m.first+room, len(rows)); i++ {
			row := m.view.row(&rows[i])
			switch {
			case i == m.cursor:
				row = ansi.Style{}.Reverse(true).Styled(row)
			case rows[i].Failures > 0:
				row = bold.Styled(row)
			}
			lines = append(lines, row)
		}
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(0, min(len(lines), m.height-1))], keys)
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], m.width, "")
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}

// state returns a line that says since when changes are, and what is wrong.
func (m *monitor) state() string {
	s := "change since " + m.view.ago() + " ago"
	if m.paused {
		s = "paused, " + s
	}
	if m.problem != "" {
		s = ansi.Style{}.Reverse(true).Styled(m.view.plain(line(m.problem))) + "  " + s
	}
	return s
}

// details returns the lines that show the whole stack of a row.
func (m *monitor) details(r *shownRow) []string {
	lines := []string{fmt.Sprintf("%s, change %s, in %s", m.view.plain(line(r.Name)), signedBytes(r.change), number(r.Blocks, "block"))}
	for _, f := range r.Stack {
		lines = append(lines, m.view.plain(frameText(f)))
	}
	return lines
}

func frameText(f recording.Frame) string {
	return fmt.Sprintf("  %s (%s:%d)", line(f.Function), line(f.File), f.Line)
}
