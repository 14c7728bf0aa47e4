package otlp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// An exporter with something to release after its own Shutdown.
type closingExporter struct {
	sdktrace.SpanExporter
	close func() error
}

func (e *closingExporter) Shutdown(ctx context.Context) error {
	return errors.Join(e.SpanExporter.Shutdown(ctx), e.close())
}

// newGRPCExporter does not connect; the first batch does.
func newGRPCExporter(ctx context.Context, t target) (sdktrace.SpanExporter, error) {
	return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(t.url), otlptracegrpc.WithTimeout(t.timeout))
}

func newHTTPExporter(ctx context.Context, t target) (sdktrace.SpanExporter, error) {
	opts := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(t.url), otlptracehttp.WithTimeout(t.timeout)}
	if name, _ := lookup("TRACES_CERTIFICATE", "CERTIFICATE", "TRACES_CLIENT_CERTIFICATE", "CLIENT_CERTIFICATE"); name != "" {
		// Certificates are read into the exporter's own HTTP client only. Its
		// idle connections outlive Shutdown by at most 90 seconds.
		return otlptracehttp.New(ctx, opts...)
	}
	// A transport of our own, so that its idle connections end with Shutdown.
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: t.timeout,
	}
	client := &http.Client{Transport: transport, Timeout: t.timeout}
	exp, err := otlptracehttp.New(ctx, append(opts, otlptracehttp.WithHTTPClient(client))...)
	if err != nil {
		return nil, err
	}
	return &closingExporter{exp, func() error { transport.CloseIdleConnections(); return nil }}, nil
}

// newFileExporter encodes with the HTTP exporter. Every setting that its
// environment variables could have changed is set again here; retrying a
// write that failed would help nobody.
func newFileExporter(ctx context.Context, f *fileTransport, timeout time.Duration) (sdktrace.SpanExporter, error) {
	exp, err := otlptracehttp.New(ctx,
		otlptracehttp.WithEndpointURL("https://file.invalid"+tracesPath),
		otlptracehttp.WithEncoding(otlptracehttp.EncodingJSON),
		otlptracehttp.WithCompression(otlptracehttp.NoCompression),
		otlptracehttp.WithHeaders(nil),
		otlptracehttp.WithTimeout(timeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: f}),
	)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &closingExporter{exp, f.Close}, nil
}
