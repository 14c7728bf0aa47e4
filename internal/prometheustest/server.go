// Package prometheustest runs a real Prometheus for the tests of what it scrapes.
package prometheustest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"
)

// deadline bounds every wait, for what takes a second at most on a machine that is not
// busy.
const deadline = time.Minute

// LookPath returns where a program of Prometheus is. It takes seconds to run them: only a run with
// ALLOCTRACE_REQUIRE_ALL=1 does.
func LookPath(t testing.TB, program string) string {
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

// Start runs a Prometheus on a free port, with a feature that is to be enabled, until the test ends. It
// scrapes each URL every second as the job of its name. Start returns its URL.
func Start(t testing.TB, jobs map[string]string, feature string) string {
	t.Helper()
	path := LookPath(t, "prometheus")
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
		"--web.listen-address=127.0.0.1:0", "--enable-feature="+feature)
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
	var server string
	listening := regexp.MustCompile(`"?Listening on"? address=(\S+)`)
	Eventually(t, "Prometheus listens", func() error {
		select {
		case <-exited:
			t.Fatalf("%s has ended: %v", path, cmd.ProcessState)
		default:
		}
		m := listening.FindStringSubmatch(log.String())
		if m == nil {
			return fmt.Errorf("no address in its log")
		}
		server = "http://" + m[1]
		resp, err := http.Get(server + "/-/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("not ready: %s", resp.Status)
		}
		return nil
	})
	return server
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

// Eventually calls f until it returns nil. It fails the test if that takes too long.
func Eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	start := time.Now()
	for err := f(); err != nil; err = f() {
		if time.Since(start) > deadline {
			t.Fatalf("%s: %v, after %v", what, err, deadline)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
