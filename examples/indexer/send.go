package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
)

// endpointFromEnv returns what the environment says of where Jaeger is, "" if nothing, to be shown, and the URL to post to.
// The program speaks OTLP/JSON by HTTP only, without headers; package exporters/otlp speaks all there is.
func endpointFromEnv() (value, post string, err error) {
	name, path := "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""
	if value = os.Getenv(name); value == "" {
		name, path = "OTEL_EXPORTER_OTLP_ENDPOINT", "v1/traces"
		if value = os.Getenv(name); value == "" {
			return "", "", nil
		}
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return value, "", fmt.Errorf("%s=%q is not the URL of a Jaeger: set it to one such as http://localhost:4318", name, value)
	}
	shown := u.Redacted() // without a password
	protocol := "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	if os.Getenv(protocol) == "" {
		protocol = "OTEL_EXPORTER_OTLP_PROTOCOL"
	}
	if os.Getenv(protocol) == "grpc" {
		return shown, "", fmt.Errorf("%s=grpc: the indexer speaks HTTP only, unset it and set %s to the port for that, 4318 by default; "+
			"your own program can speak gRPC by package exporters/otlp", protocol, name)
	}
	if path == "" {
		return shown, value, nil
	}
	return shown, u.JoinPath(path).String(), nil
}

// send posts each line of the file at path to Jaeger, if the environment says where one is, and returns that.
func send(ctx context.Context, path string) (endpoint string, err error) {
	endpoint, post, err := endpointFromEnv()
	if err != nil || endpoint == "" {
		return "", err
	}
	lines, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	n, sent := bytes.Count(lines, []byte("\n")), 0
	for line := range bytes.Lines(lines) {
		if err := postLine(ctx, post, line); err != nil {
			return "", fmt.Errorf("%d of the %d spans did not reach %s: %w; they are in %s", n-sent, n, endpoint, err, path)
		}
		sent++
	}
	return endpoint, nil
}

// noRedirects keeps the answers that are redirects, which are none of OTLP.
var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// postLine returns nil if the answer is that of an OTLP server that took the whole line.
func postLine(ctx context.Context, to string, line []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(line))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := noRedirects.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil || len(body) == 0 {
		return err
	}
	var answer struct {
		PartialSuccess struct {
			RejectedSpans json.Number // also if it is a string, as in OTLP
			ErrorMessage  string
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the answer is %s and not that of OTLP: %w", resp.Status, err)
	}
	if p := answer.PartialSuccess; p.RejectedSpans != "" && p.RejectedSpans != "0" {
		return fmt.Errorf("rejected: %q", p.ErrorMessage)
	}
	return nil
}
