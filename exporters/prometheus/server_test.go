package prometheus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace/internal/prometheustest"
)

// A server is a running Prometheus.
type server struct{ url string }

// startServer runs a Prometheus that scrapes each URL every second as the job of its name, until the test ends.
func startServer(t *testing.T, jobs map[string]string) *server {
	t.Helper()
	return &server{prometheustest.Start(t, jobs, "native-histograms")}
}

// A sample is an element of an instant vector: a number or a native histogram.
type sample struct {
	Metric    map[string]string `json:"metric"`
	Value     [2]any            `json:"value"` // time and value
	Histogram [2]any            `json:"histogram"`
}

// query returns the instant vector that is the answer to a PromQL expression.
func (s *server) query(expr string) ([]sample, error) {
	resp, err := http.Get(s.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s", expr, answer.Error)
	}
	return answer.Data.Result, nil
}

// number returns the value of an expression that has one.
func (s *server) number(expr string) (float64, error) {
	v, err := s.query(expr)
	if err != nil {
		return 0, err
	}
	if len(v) != 1 {
		return 0, fmt.Errorf("%s: %d values, want 1", expr, len(v))
	}
	text, ok := v[0].Value[1].(string)
	if !ok {
		return 0, fmt.Errorf("%s: not a number but %+v", expr, v[0])
	}
	return strconv.ParseFloat(text, 64)
}

// vector returns the answer to an expression, once it has values: a scrape that takes too
// long, on a busy machine, leaves none until the next.
func (s *server) vector(t *testing.T, expr string) (v []sample) {
	t.Helper()
	prometheustest.Eventually(t, expr, func() (err error) {
		if v, err = s.query(expr); err == nil && len(v) == 0 {
			err = errors.New("no values")
		}
		return err
	})
	return v
}

// value returns the value of an expression, once there is one, as vector does.
func (s *server) value(t *testing.T, expr string) (v float64) {
	t.Helper()
	prometheustest.Eventually(t, expr, func() (err error) {
		v, err = s.number(expr)
		return err
	})
	return v
}

// check fails the test unless an expression has the value want.
func (s *server) check(t *testing.T, expr string, want float64) {
	t.Helper()
	if got := s.value(t, expr); got != want {
		t.Errorf("%s is %v, want %v", expr, got, want)
	}
}

// await waits until an expression has the value want.
func (s *server) await(t *testing.T, expr string, want float64) {
	t.Helper()
	prometheustest.Eventually(t, expr, func() error {
		got, err := s.number(expr)
		if err == nil && got != want {
			err = fmt.Errorf("it is %v, want %v", got, want)
		}
		return err
	})
}

// promtool has Prometheus' own checks look at what a handler writes of r: they have nothing
// to say.
func promtool(t *testing.T, r prometheus.Gatherer) {
	t.Helper()
	cmd := exec.Command(prometheustest.LookPath(t, "promtool"), "check", "metrics")
	cmd.Stdin = strings.NewReader(text(t, r))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestPromtool(t *testing.T) {
	r, _ := registered(t)
	promtool(t, r)
}
