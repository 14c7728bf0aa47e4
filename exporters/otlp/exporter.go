package otlp

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// A closingClient has something to release after its own Stop.
type closingClient struct {
	otlptrace.Client
	close func() error
}

func (c *closingClient) Stop(ctx context.Context) error {
	return errors.Join(c.Client.Stop(ctx), c.close())
}

// newGRPCClient does not connect; the first batch does. Each setting that the
// variables of the environment could change is set here, for the OpenTelemetry
// client reads them in its own way.
func newGRPCClient(t target) (otlptrace.Client, error) {
	u, err := url.Parse(t.url)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if u.Scheme == "https" {
		creds = credentials.NewTLS(t.tls)
	}
	opts := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(grpcAddress(u)),
		otlptracegrpc.WithTLSCredentials(creds),
		otlptracegrpc.WithTimeout(t.timeout),
		otlptracegrpc.WithHeaders(t.headers),
	}
	if t.gzip {
		opts = append(opts, otlptracegrpc.WithCompressor("gzip"))
	}
	return otlptracegrpc.NewClient(opts...), nil
}

// grpcAddress returns host and port as gRPC has them, with the port of the
// scheme if there is none: gRPC would take 443 for http, too.
func grpcAddress(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	// The zone of an IPv6 address has a % of its own.
	return strings.ReplaceAll(net.JoinHostPort(u.Hostname(), port), "%", "%25")
}

// newHTTPClient sets what the environment could change, as newGRPCClient does.
// It has a transport of its own, so that its idle connections end with Stop.
func newHTTPClient(t target) (otlptrace.Client, error) {
	u, err := url.Parse(t.url)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: t.timeout,
		TLSClientConfig:     t.tls,
	}
	opts := []otlptracehttp.Option{
		otlptracehttp.WithEndpointURL(t.url),
		otlptracehttp.WithTLSClientConfig(nil), // the transport has it
		otlptracehttp.WithTimeout(t.timeout),
		otlptracehttp.WithHeaders(t.headers),
		otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf),
		otlptracehttp.WithCompression(otlptracehttp.NoCompression),
		otlptracehttp.WithHTTPClient(&http.Client{
			Transport: &deliveryTransport{url: u, base: transport},
			Timeout:   t.timeout,
		}),
	}
	if t.json {
		opts = append(opts, otlptracehttp.WithEncoding(otlptracehttp.EncodingJSON))
	}
	if t.gzip {
		opts = append(opts, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	return &closingClient{otlptracehttp.NewClient(opts...), func() error { transport.CloseIdleConnections(); return nil }}, nil
}
