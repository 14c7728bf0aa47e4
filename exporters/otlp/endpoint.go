package otlp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const tracesPath = "v1/traces"

// A target says where spans go and how.
type target struct {
	protocol Protocol
	url      string // complete, for HTTP with the path to post to
	timeout  time.Duration
	json     bool // OTLP/JSON by HTTP
	gzip     bool
	headers  map[string]string
	tls      *tls.Config // nil if no certificate is set
}

// resolveTarget settles the target from the options, then the environment,
// then the defaults.
func resolveTarget(o *Options, b batching) (target, error) {
	t := target{protocol: o.Protocol}
	var err error
	if t.timeout, err = resolveTimeout(o, b); err != nil {
		return t, err
	}
	if t.protocol == 0 {
		if t.protocol, t.json, err = envProtocol(); err != nil {
			return t, err
		}
	}
	if err := t.resolveURL(o); err != nil {
		return t, err
	}
	if t.gzip, err = envCompression(); err != nil {
		return t, err
	}
	if t.headers, err = envHeaders(t.protocol); err != nil {
		return t, err
	}
	t.tls, err = envTLS()
	return t, err
}

// resolveTimeout returns the bound for one batch. Without an option it is the
// shorter of what the exporter and what the processor may take.
func resolveTimeout(o *Options, b batching) (time.Duration, error) {
	if o.Timeout != 0 {
		return o.Timeout, nil
	}
	traces, general := otlpNames("TIMEOUT")
	timeout, err := envMilliseconds(unlimited, DefaultTimeout, traces, general)
	if b.timeout != 0 {
		timeout = min(timeout, b.timeout)
	}
	return timeout, err
}

// resolveURL settles the URL, and the protocol if it is open.
func (t *target) resolveURL(o *Options) error {
	traces, _ := otlpNames("ENDPOINT")
	raw, source, base := o.Endpoint, fmt.Sprintf("Options.Endpoint=%q", withoutUser(o.Endpoint)), false
	if raw == "" {
		var name string
		name, raw = lookupOTLP("ENDPOINT")
		source = fmt.Sprintf("%s=%q", name, withoutUser(raw))
		base = name != traces // the path is added to it, whatever it ends in
	}
	if raw == "" {
		raw = "http://localhost:4318"
		if t.protocol == GRPC {
			raw = "http://localhost:4317"
		}
	}
	u, err := parseEndpoint(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if t.protocol == 0 {
		t.protocol = HTTP
		if u.Port() == "4317" {
			t.protocol = GRPC
		}
	}
	path := u.EscapedPath() // %2F is not a slash
	switch {
	case t.protocol == GRPC:
		if path != "" && path != "/" {
			return fmt.Errorf("%s: gRPC takes no path; remove %q or use HTTP", source, path)
		}
		path = ""
	case base, o.Endpoint != "" && (path == "" || path == "/"):
		path = strings.TrimSuffix(path, "/") + "/" + tracesPath
	case path == "":
		path = "/"
	}
	if u.Path, err = url.PathUnescape(path); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	u.RawPath, u.ForceQuery = path, false
	t.url = u.String()
	return nil
}

// withoutUser returns a URL as an error may show it: with "…" for the user and the password. It need not be a URL.
func withoutUser(raw string) string {
	at := strings.LastIndexByte(raw, '@')
	if at < 0 {
		return raw
	}
	scheme, _, ok := strings.Cut(raw[:at], "://")
	if !ok {
		return "…" + raw[at:]
	}
	return scheme + "://…" + raw[at:]
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
	case err != nil && strings.Contains(raw, "@"): // err may show a part of the password
		return nil, errors.New(`not a URL; write one such as "http://localhost:4318", and pass credentials in OTEL_EXPORTER_OTLP_HEADERS`)
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
	case strings.Contains(u.Hostname(), ":") && u.Host[0] != '[':
		return nil, errors.New(`an IPv6 address without brackets; write it as in "http://[::1]:4318"`)
	case u.User != nil:
		return nil, errors.New("a user in the URL is never sent; pass credentials in OTEL_EXPORTER_OTLP_HEADERS")
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
func envProtocol() (p Protocol, json bool, err error) {
	name, v := lookupOTLP("PROTOCOL")
	switch strings.ToLower(v) {
	case "":
		return 0, false, nil
	case "grpc":
		return GRPC, false, nil
	case "http/protobuf":
		return HTTP, false, nil
	case "http/json":
		return HTTP, true, nil
	}
	return 0, false, envError(name, v, "unknown protocol", "use grpc, http/protobuf or http/json")
}

func envCompression() (gzip bool, err error) {
	name, v := lookupOTLP("COMPRESSION")
	switch strings.ToLower(v) {
	case "", "none":
		return false, nil
	case "gzip":
		return true, nil
	}
	return false, envError(name, v, "unknown compression", "use gzip or none")
}
