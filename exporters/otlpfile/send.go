package otlpfile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"
)

// Send posts each line of the file at path to a collector, for example a Jaeger at http://localhost:4318. The variable
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT names it. Send returns the variable's value without a
// password. If neither is set, it does nothing and returns "". So a program always leaves a file, and Jaeger has the trace too
// if it runs. Call Send after the exporter's Shutdown.
//
// Send posts OTLP/JSON by HTTP without headers, and waits for an answer for 10 s at most. It reads no other variables than
// those of the endpoint and the protocol. Package [github.com/alloctrace/alloctrace/exporters/otlp] has gRPC, headers and TLS,
// and sends spans while the program runs.
//
// What follows the last end of a line is the half line of a program that was killed, and is not sent. For the files of
// [CreateRotating] call Send with each of [Files].
//
// A line has arrived if the answer is a 2xx of OTLP that accepts all of its spans. Redirects are not followed. The error says
// how many lines did not arrive, and why the first of them did not.
func Send(ctx context.Context, path string) (endpoint string, err error) {
	endpoint, post, err := endpointFromEnv()
	if err == nil && endpoint != "" {
		err = send(ctx, path, endpoint, post)
	}
	if err != nil {
		return "", fmt.Errorf("otlpfile: Send(%q): %w", path, err)
	}
	return endpoint, nil
}

// endpointFromEnv returns what the environment says of where the collector is, "" if nothing, to be shown, and the URL to
// post to.
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
		return value, "", fmt.Errorf("%s=%q is not the URL of a collector: set it to one such as http://localhost:4318", name, value)
	}
	shown := u.Redacted() // without a password
	protocol := "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	if os.Getenv(protocol) == "" {
		protocol = "OTEL_EXPORTER_OTLP_PROTOCOL"
	}
	if os.Getenv(protocol) == "grpc" {
		return shown, "", fmt.Errorf("%s=grpc: a file is sent by HTTP only, unset it and set %s to the port for that, 4318 by default; "+
			"package exporters/otlp speaks gRPC", protocol, name)
	}
	if path == "" {
		return shown, value, nil
	}
	return shown, u.JoinPath(path).String(), nil
}

func send(ctx context.Context, path, endpoint, post string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("the file cannot be read: %w", bare(err))
	}
	lines := slices.Collect(bytes.Lines(data[:bytes.LastIndexByte(data, '\n')+1]))
	for i, line := range lines {
		if err := postLine(ctx, post, line); err != nil {
			return fmt.Errorf("%d of the %d lines did not reach %s: %w; they are in the file", len(lines)-i, len(lines), endpoint, err)
		}
	}
	return nil
}

// client keeps the answers that are redirects, which are none of OTLP.
var client = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       10 * time.Second,
}

// postLine returns nil if the answer is that of an OTLP server that took the whole line.
func postLine(ctx context.Context, to string, line []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(line))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			return failed.Err // the URL is in the sentence already
		}
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
