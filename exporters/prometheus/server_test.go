package prometheus_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// deadline bounds every wait, for what takes a second at most on a machine that is not
// busy.
const deadline = time.Minute

// lookPath returns where a program of Prometheus is. It takes seconds to run them: only a run with
// ALLOCTRACE_REQUIRE_ALL=1 does.
func lookPath(t *testing.T, program string) string {
	t.Helper()
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "1" {
		t.Skipf("needs %s: apt-get install prometheus and set ALLOCTRACE_REQUIRE_ALL=1", program)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%v: apt-get install prometheus", err)
	}
	return path
}

// A server is a running Prometheus.
type server struct{ url string }

// startServer runs a Prometheus on a free port, which scrapes each URL every second as the
// job of its name, until the test ends.
func startServer(t *testing.T, jobs map[string]string) *server {
	t.Helper()
	path := lookPath(t, "prometheus")
	dir := t.TempDir()
	config := "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n"
	for job, target := range jobs {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("  - job_name: %s\n    metrics_path: %s\n    static_configs:\n      - targets: [%q]\n", job, u.Path, u.Host)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	log := new(logBuffer)
	cmd := exec.Command(path, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:0", "--enable-feature=native-histograms")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("the log of %s:\n%s", path, log)
		}
	})
	var s server
	listening := regexp.MustCompile(`"?Listening on"? address=(\S+)`)
	eventually(t, "Prometheus listens", func() error {
		select {
		case <-exited:
			t.Fatalf("%s has ended: %v", path, cmd.ProcessState)
		default:
		}
		m := listening.FindStringSubmatch(log.String())
		if m == nil {
			return fmt.Errorf("no address in its log")
		}
		s.url = "http://" + m[1]
		resp, err := http.Get(s.url + "/-/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("not ready: %s", resp.Status)
		}
		return nil
	})
	return &s
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// eventually calls f until it returns nil. It fails the test if that takes too long.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	start := time.Now()
	for err := f(); err != nil; err = f() {
		if time.Since(start) > deadline {
			t.Fatalf("%s: %v, after %v", what, err, deadline)
		}
		time.Sleep(20 * time.Millisecond)
	}
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
	eventually(t, expr, func() (err error) {
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
	eventually(t, expr, func() (err error) {
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
	eventually(t, expr, func() error {
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
	cmd := exec.Command(lookPath(t, "promtool"), "check", "metrics")
	cmd.Stdin = strings.NewReader(text(t, r))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestPromtool(t *testing.T) {
	r, _ := registered(t)
	promtool(t, r)
}
