package prometheus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/prometheustest"
)

// dashboard is what Grafana reads of dashboard.json and these tests check.
type dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name       string `json:"name"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID      int                      `json:"id"`
		Type    string                   `json:"type"`
		Title   string                   `json:"title"`
		GridPos struct{ X, Y, W, H int } `json:"gridPos"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	data, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// registeredAll returns a registry with all that the dashboard shows, and the Proxy.
func registeredAll(t *testing.T) (*prometheus.Registry, *alloctrace.Proxy) {
	t.Helper()
	r, mem := registered(t)
	resident, err := allocprom.NewRSSCollector(mem)
	if err != nil {
		t.Fatal(err)
	}
	slow := hooks.NewMeter(alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { time.Sleep(time.Microsecond) }))
	for slow.Usage().Time == 0 { // none was timed
		slow.Observe(t.Context(), alloctrace.Event{}, nil)
	}
	r.MustRegister(resident, allocprom.NewHookCollector(slow, "slow"))
	return r, mem
}

// metricsIn returns the metrics that an expression names, which are exported.
func metricsIn(t *testing.T, where, expr string, exported map[string]*dto.MetricFamily) (names []string) {
	t.Helper()
	for _, name := range regexp.MustCompile(`\ballocator_\w+`).FindAllString(expr, -1) {
		switch name {
		case "allocator_name", "allocator_child", "allocator_operation":
			continue
		}
		if base := strings.TrimSuffix(name, "_bucket"); exported[base].GetType().String() == "HISTOGRAM" {
			name = base
		}
		names = append(names, name)
		if exported[name] == nil {
			t.Errorf("%s: %s is not exported", where, name)
		}
	}
	return names
}

// The dashboard asks for what is exported, and for all of it; its panels have a place of
// their own each, and its variables are there.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion == 0 || len(d.Panels) == 0 {
		t.Fatalf("this is no dashboard: %+v", d)
	}
	r, _ := registeredAll(t)
	exported := families(t, r)
	asked := make(map[string]bool)
	variables := make(map[string]bool)
	check := func(where, expr string) {
		for _, name := range metricsIn(t, where, expr, exported) {
			asked[name] = true
		}
		for _, m := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(expr, -1) {
			if !variables[m[1]] && !strings.HasPrefix(m[1], "__") {
				t.Errorf("%s: no variable %s before it", where, m[1])
			}
		}
	}
	for _, v := range d.Templating.List {
		check("variable "+v.Name, v.Definition)
		variables[v.Name] = true
	}
	taken := make(map[[2]int]string)
	ids := make(map[int]bool)
	for _, p := range d.Panels {
		if p.Title == "" || len(p.Targets) == 0 || ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d, %q, of %d targets at %+v", p.ID, p.Title, len(p.Targets), p.GridPos)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, ok := taken[at]; ok {
					t.Fatalf("panels %q and %q overlap at %v", other, p.Title, at)
				}
				taken[at] = p.Title
			}
		}
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for name := range exported {
		if !asked[name] {
			t.Errorf("%s is exported and on no panel", name)
		}
	}
}

// A Prometheus has an answer to every question of the dashboard, from the classic
// histogram and from the native one.
func TestDashboardAnswers(t *testing.T) {
	d := readDashboard(t)
	r, mem := registeredAll(t)
	s := serve(t, r)
	s.await(t, `count(count_over_time(allocator_blocks{allocator_child=""}[1m]) >= 2)`, 2)
	allocations := func() (float64, error) {
		return s.number(`min(increase(allocator_allocations_total{allocator_child=""}[1m]))`)
	}
	prometheustest.Eventually(t, "allocations between two scrapes", func() error {
		b, err := mem.Allocate(blockalloc.Layout{Size: 100, Align: 8})
		if err == nil {
			err = mem.Free(b)
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := allocations(); err != nil || n == 0 {
			return fmt.Errorf("%v of them (%v)", n, err)
		}
		return nil
	})
	for _, job := range []string{"native", "classic"} {
		values := strings.NewReplacer("$job", job, "$instance", ".*", "$allocator", ".*", "$__rate_interval", "1m", "$__range", "1m")
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				expr := values.Replace(target.Expr)
				for _, sample := range s.vector(t, expr) {
					if sample.Value[1] == "NaN" {
						t.Errorf("%s: the answer to %s is no number", p.Title, expr)
					}
				}
			}
		}
	}
}
