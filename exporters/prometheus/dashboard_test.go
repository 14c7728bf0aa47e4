package prometheus_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	schema "github.com/grafana/grafana-foundation-sdk/go/dashboard"
	query "github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// readAsGrafana reads a dashboard by the schemas of Grafana, its panels and its Prometheus data source, and returns what they refuse.
//
//lint:ignore SA1019 dashboard.json is of the schema that every Grafana imports, and not of its successor
func readAsGrafana(data []byte) (d schema.Dashboard, refused string) {
	plugins.RegisterDefaultPlugins()
	if err := d.UnmarshalJSONStrict(data); err != nil { // which it is with nothing wrong too
		refused = err.Error()
	}
	if err := d.Validate(); err != nil {
		refused += err.Error()
	}
	if err := json.Unmarshal(data, &d); err != nil { // strictly, it does not keep panels
		refused += err.Error()
	}
	return d, refused
}

// TestDashboardSchema: by Grafana's own schemas the dashboard has no field that is unknown, of another type, or missing, and neither have
// the options of its panels and its queries.
func TestDashboardSchema(t *testing.T) {
	data, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	d, refused := readAsGrafana(data)
	if refused != "" {
		t.Error(refused)
	}
	panels := 0
	for _, p := range d.Panels {
		panels++
		for _, target := range p.Panel.Targets {
			if _, ok := target.(*query.Dataquery); !ok {
				if _, ok := target.(query.Dataquery); !ok {
					t.Errorf("panel %v: %T is no query of Prometheus", *p.Panel.Title, target)
				}
			}
		}
	}
	if want := strings.Count(string(data), `"gridPos"`); panels != want || panels == 0 {
		t.Errorf("%d panels, want %d", panels, want)
	}
	for old, wrong := range map[string]string{
		`"schemaVersion": 39`:    `"schemaVersion": "39"`,
		`"graphTooltip": 1`:      `"graphTooltips": 1`,
		`"colorMode": "value"`:   `"colourMode": "value"`,
		`"showLegend": true, `:   ``,
		`"range": true`:          `"range": 1`,
		`"legendFormat": "used"`: `"legend": "used"`,
	} {
		changed := bytes.Replace(data, []byte(old), []byte(wrong), 1)
		if _, refused := readAsGrafana(changed); bytes.Equal(changed, data) || refused == "" {
			t.Errorf("%q instead of %q is not refused", wrong, old)
		}
	}
}
