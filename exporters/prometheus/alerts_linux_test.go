package prometheus_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/internal/prometheustest"
)

// TestAlerts: Prometheus' own promtool finds each rule of alerts.yml fire for the series that it is for, and for no others; the
// series are all exported.
func TestAlerts(t *testing.T) {
	rules, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("testdata/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`(?m)^      - alert: (\w+)$`).FindAllSubmatch(rules, -1)
	if len(alerts) == 0 {
		t.Error("alerts.yml has no alerts")
	}
	for _, m := range alerts {
		if !strings.Contains(string(tests), "alertname: "+string(m[1])+"\n        exp_alerts:") {
			t.Errorf("no series of testdata/alerts_test.yml has %s fire", m[1])
		}
	}
	r, _ := registeredAll(t)
	metricsIn(t, "alerts.yml", string(rules), families(t, r))
	promtool := prometheustest.LookPath(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "testdata/alerts_test.yml"}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
