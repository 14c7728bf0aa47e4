package vm

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/examples/scheme/immix"
)

// A line of the table of R7RS.
type row struct {
	line             int
	section          string
	expression, want string
}

func table(t testing.TB) (rows []row) {
	t.Helper()
	text, err := os.ReadFile("testdata/r7rs.txt")
	if err != nil {
		t.Fatal(err)
	}
	section := ""
	for i, line := range strings.Split(string(text), "\n") {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			section = heading
		} else if line != "" && !strings.HasPrefix(line, "# ") {
			expression, want, ok := strings.Cut(line, " ==> ")
			if !ok {
				t.Fatalf("line %d has no ==>", i+1)
			}
			rows = append(rows, row{i + 1, section, expression, want})
		}
	}
	return rows
}

// last runs the forms of a row and returns what the last is.
func last(m *Machine, text string) string {
	got := run(m, text)
	return got[strings.LastIndex(got, "\n")+1:]
}

func TestR7RS(t *testing.T) {
	rows := table(t)
	if len(rows) < 200 {
		t.Errorf("the table has %d rows", len(rows))
	}
	for name, o := range map[string]immix.Options{
		"default": {},
		"moving":  {Evacuate: immix.Always, Check: true, Allowance: 16 << 10},
		"stress":  {Evacuate: immix.Always, Check: true, Stress: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := newMachine(t, Options{Heap: o})
			for _, r := range rows {
				if o.Stress && strings.Contains(r.expression, "10000") {
					continue // it does something so many times: with a collection for each allocation it takes minutes
				}
				if got := last(m, r.expression); got != r.want {
					t.Errorf("line %d, %s: %s\n got %s\nwant %s", r.line, r.section, r.expression, got, r.want)
				}
			}
		})
	}
}

// TestNames: what R7RS-small exports is there, but for what README.md lists.
func TestNames(t *testing.T) {
	text, err := os.ReadFile("testdata/names.txt")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(readme), "these names are missing:")
	list, _, _ = strings.Cut(list, ". So are")
	m, _ := newMachine(t, Options{})
	var missing []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "(") {
			continue
		}
		for _, name := range strings.Fields(line) {
			s := m.intern(name)
			if m.syntax[s] == nil && m.globals[m.global(s).index] == unbound {
				missing = append(missing, "`"+name+"`")
			}
		}
	}
	slices.Sort(missing)
	got := strings.Fields(list)
	if slices.Sort(got); !slices.Equal(got, missing) {
		t.Errorf("README.md says that there are not\n%s\nthere are not\n%s", strings.Join(got, " "), strings.Join(missing, " "))
	}
	if rows := len(table(t)); !strings.Contains(string(readme), fmt.Sprintf(" has %d expressions ", rows)) {
		t.Errorf("README.md does not say that there are %d expressions", rows)
	}
}
