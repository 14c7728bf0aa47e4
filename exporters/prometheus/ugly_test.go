package prometheus_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
	"github.com/alloctrace/alloctrace/hooks"
	texts "github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

// registeredUgly returns a registry of allocators, children and hooks of all ugly names, and how
// many allocators and children there are by the labels' values.
func registeredUgly(t *testing.T) (r *prometheus.Registry, allocators, children map[string]int) {
	t.Helper()
	r = prometheus.NewPedanticRegistry()
	allocators, children = make(map[string]int), make(map[string]int)
	whole := alloctest.New(t)
	r.MustRegister(allocprom.NewCollector(whole, "whole", allocprom.Options{Children: true}))
	allocators["whole"]++
	for _, u := range texttest.Table() {
		child := whole.Child(u.Text)
		b := allocate(t, child, 64)
		t.Cleanup(func() { free(t, child, b) })
		if u.Text == "" {
			continue
		}
		name := texts.Name(u.Text)
		children[name]++
		c, err := allocprom.Register(r, child, u.Text, allocprom.Options{})
		hook := r.Register(allocprom.NewHookCollector(&asked{usage: hooks.Usage{Bytes: 1}}, u.Text))
		if allocators[name] == 0 {
			if err != nil || hook != nil {
				t.Errorf("%s: %v, %v", u.Case, err, hook)
			}
			allocators[name]++
		} else if are := (prometheus.AlreadyRegisteredError{}); c != nil || !errors.As(err, &are) || !errors.As(hook, &are) {
			t.Errorf("%s: %v, %v, want the error that there is one of the name", u.Case, err, hook)
		}
	}
	if n := children["same\uFFFD"]; n != 3 {
		t.Fatalf("%d names become the same, want 3", n)
	}
	return r, allocators, children
}

// TestUglyNames: a scrape has each name, and no name spoils the others'.
func TestUglyNames(t *testing.T) {
	r, allocators, children := registeredUgly(t)
	hooks := len(children)
	all := families(t, r)
	for _, m := range all["allocator_blocks"].Metric {
		labels := make(map[string]string)
		for _, l := range m.Label {
			if labels[l.GetName()] = l.GetValue(); !utf8.ValidString(l.GetValue()) || len(l.GetValue()) > 2*texts.MaxName {
				t.Errorf("a label has the value %q", l.GetValue())
			}
		}
		if child := labels["allocator_child"]; child != "" {
			if got, want := m.Gauge.GetValue(), float64(children[child]); got != want {
				t.Errorf("child %q has %v blocks, want %v", child, got, want)
			}
			delete(children, child)
		} else {
			delete(allocators, labels["allocator_name"])
		}
	}
	if len(children) != 0 || len(allocators) != 0 {
		t.Errorf("not there are the children %v and the allocators %v", children, allocators)
	}
	if got, want := len(all["allocator_instrumentation_memory_bytes"].Metric), hooks; got != want {
		t.Errorf("there are %d hooks, want %d", got, want)
	}
}

func TestPromtoolUglyNames(t *testing.T) {
	r, _, _ := registeredUgly(t)
	promtool(t, r)
}

// TestPrometheusUglyNames reads them back from a real Prometheus, of which the text format
// and the other have their own parsers.
func TestPrometheusUglyNames(t *testing.T) {
	r, allocators, children := registeredUgly(t)
	s := serve(t, r)
	for _, job := range []string{"native", "classic"} {
		s.await(t, fmt.Sprintf(`count(allocator_blocks{job=%q,allocator_child=""})`, job), float64(len(allocators)))
		v := s.vector(t, fmt.Sprintf(`allocator_blocks{job=%q}`, job))
		var wholes, parts int
		for _, sample := range v {
			name, child := sample.Metric["allocator_name"], sample.Metric["allocator_child"]
			switch {
			case child == "" && allocators[name] == 1:
				wholes++
			case child != "" && children[child] != 0 && sample.Value[1] == fmt.Sprint(children[child]):
				parts++
			default:
				t.Errorf("%s: %q has the child %q with %v blocks", job, name, child, sample.Value[1])
			}
		}
		if wholes != len(allocators) || parts != len(children) {
			t.Errorf("%s: %d allocators and %d children, want %d and %d", job, wholes, parts, len(allocators), len(children))
		}
		s.check(t, fmt.Sprintf(`count(allocator_instrumentation_memory_bytes{job=%q})`, job), float64(len(children)))
	}
}

// TestLongPaths: children of children of long names are shown as far as their path is bounded,
// and always as part of the whole.
func TestLongPaths(t *testing.T) {
	whole := alloctest.New(t)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(allocprom.NewCollector(whole, "whole", allocprom.Options{Children: true}))
	var p *alloctrace.Proxy = whole
	const depth = 40
	for range depth {
		p = p.Child(strings.Repeat("x", 100_000))
	}
	b := allocate(t, p, 64)
	defer free(t, p, b)
	m := families(t, r)["allocator_memory_used_bytes"].Metric
	want := texts.MaxText / (texts.MaxName + 1)
	if len(m) != 1+want {
		t.Errorf("there are %d series, want the whole and %d children", len(m), want)
	}
	for _, m := range m {
		if m.Gauge.GetValue() != 64 {
			t.Errorf("%v bytes are live in %v, want 64", m.Gauge.GetValue(), m.Label)
		}
	}
}
