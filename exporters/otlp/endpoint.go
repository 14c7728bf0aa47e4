package otlp

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

const (
	envPrefix  = "OTEL_EXPORTER_OTLP_"
	tracesPath = "/v1/traces"
)

// lookup returns the first of the named OTEL_EXPORTER_OTLP_ variables that is
// set to something, and its full name. A blank value counts as unset, as the
// OpenTelemetry specification has it.
func lookup(names ...string) (name, value string) {
	for _, n := range names {
		if v := strings.TrimSpace(os.Getenv(envPrefix + n)); v != "" {
			return envPrefix + n, v
		}
	}
	return "", ""
}

// A target says where spans go and how.
type target struct {
	protocol Protocol
	url      string // complete, for HTTP with the path to post to
	timeout  time.Duration
}

// resolveTarget settles endpoint, protocol and timeout from the options, then
// the environment, then the defaults.
func resolveTarget(c *config) (target, error) {
	t := target{protocol: c.protocol, timeout: c.timeout}
	var err error
	if t.timeout == 0 {
		if t.timeout, err = envTimeout(); err != nil {
			return t, err
		}
	}
	if t.protocol == 0 {
		if t.protocol, err = envProtocol(); err != nil {
			return t, err
		}
	}

	raw, source, base := c.endpoint, fmt.Sprintf("WithEndpoint(%q)", c.endpoint), false
	if raw == "" {
		var name string
		name, raw = lookup("TRACES_ENDPOINT", "ENDPOINT")
		source = fmt.Sprintf("%s=%q", name, raw)
		base = name != envPrefix+"TRACES_ENDPOINT" // the path is added to it, whatever it ends in
	}
	if raw == "" {
		raw = "http://localhost:4318"
		if t.protocol == GRPC {
			raw = "http://localhost:4317"
		}
	}
	u, err := parseEndpoint(raw)
	if err != nil {
		return t, fmt.Errorf("%s: %w", source, err)
	}
	if t.protocol == 0 {
		t.protocol = HTTP
		if u.Port() == "4317" {
			t.protocol = GRPC
		}
	}
	switch {
	case t.protocol == GRPC:
		if u.Path != "" && u.Path != "/" {
			return t, fmt.Errorf("%s: gRPC takes no path; remove %q or use HTTP", source, u.Path)
		}
		u.Path = ""
	case base:
		u.Path = path.Join("/", u.Path, tracesPath)
	case c.endpoint != "" && (u.Path == "" || u.Path == "/"):
		u.Path = tracesPath
	case u.Path == "":
		u.Path = "/"
	}
	t.url = u.String()
	return t, nil
}

// parseEndpoint returns the parts of a collector's URL, or an error that says
// what is wrong with it and how it would be right.
func parseEndpoint(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return nil, errors.New(`the URL is empty; write one such as "http://localhost:4318"`)
	case !strings.Contains(raw, "://"):
		return nil, errors.New(`the scheme is missing; write it as in "http://localhost:4318", or with https for TLS`)
	case err != nil:
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf(`not a URL (%w); write one such as "http://localhost:4318"`, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("unknown scheme %q; use http, or https for TLS", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New(`the host is missing; write it as in "http://localhost:4318"`)
	case u.User != nil:
		return nil, errors.New("a user in the URL is never sent; pass credentials in " + envPrefix + "HEADERS")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("a query or fragment is never sent; end the URL after its path")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("no such port as %s; use one from 1 to 65535", p)
		}
	}
	return u, nil
}

// envProtocol returns 0 when the environment names no protocol.
func envProtocol() (Protocol, error) {
	name, v := lookup("TRACES_PROTOCOL", "PROTOCOL")
	switch v {
	case "":
		return 0, nil
	case "grpc":
		return GRPC, nil
	case "http/protobuf", "http/json":
		return HTTP, nil
	}
	return 0, fmt.Errorf("%s=%q: unknown protocol; use grpc, http/protobuf or http/json", name, v)
}

func envTimeout() (time.Duration, error) {
	name, v := lookup("TRACES_TIMEOUT", "TIMEOUT")
	if v == "" {
		return DefaultTimeout, nil
	}
	ms, err := strconv.ParseInt(v, 10, 32)
	if err != nil || ms <= 0 {
		return 0, fmt.Errorf("%s=%q: not a timeout; use a whole number of milliseconds above zero, such as 10000", name, v)
	}
	return time.Duration(ms) * time.Millisecond, nil
}
