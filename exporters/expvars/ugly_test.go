package expvars_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/expvars"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

// TestUglyNames publishes all ugly names and reads them back. Names that become equal are taken.
func TestUglyNames(t *testing.T) {
	prefix := name(t) // of one run, for nothing that is published can be taken back
	want := make(map[string]int64)
	for i, u := range texttest.Table() {
		name := text.Name(prefix + u.Text)
		err := expvars.Publish(counter.Stats{Allocations: int64(i + 1)}, prefix+u.Text)
		if want[name] == 0 {
			want[name] = int64(i + 1)
		} else if err != nil && strings.Contains(err.Error(), "is taken: ") {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", u.Case, err)
		}
	}
	vars := get(t)
	for name, allocations := range want {
		var got counter.Stats
		if err := json.Unmarshal(vars[name], &got); err != nil || got.Allocations != allocations {
			t.Errorf("%q is %s, %v; want %d allocations", name, vars[name], err, allocations)
		}
	}
}

type failing struct{ calls *int }

func (f failing) Stats() counter.Stats {
	if *f.calls++; *f.calls < 3 {
		panic("no stats")
	}
	return counter.Stats{Allocations: 7}
}

// TestFailingSource: all other variables are there, and how often it failed.
func TestFailingSource(t *testing.T) {
	bad, good := name(t), name(t)
	for name, s := range map[string]counter.Source{bad: failing{new(int)}, good: counter.Stats{Allocations: 7}} {
		if err := expvars.Publish(s, name); err != nil {
			t.Fatal(err)
		}
	}
	const failures = `{"read_failures":%d}`
	for _, want := range []string{fmt.Sprintf(failures, 1), fmt.Sprintf(failures, 2), expvars.Func(counter.Stats{Allocations: 7}).String()} {
		vars := get(t)
		var s counter.Stats
		if err := json.Unmarshal(vars[good], &s); err != nil || s.Allocations != 7 || string(vars[bad]) != want {
			t.Errorf("beside a source that fails there is %s, %v, and of it %s, want %s", vars[good], err, vars[bad], want)
		}
	}
}
