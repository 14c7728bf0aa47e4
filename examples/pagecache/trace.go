package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/exporters/otlpfile"
)

// service is the name under which Jaeger lists the traces.
const service = "pagecache"

// sendTimeout bounds the sending of the trace to Jaeger, which may be down.
const sendTimeout = 3 * time.Second

// spans are written to a file as they end, and in the end sent to the Jaeger of OTEL_EXPORTER_OTLP_ENDPOINT, if it is set.
type spans struct {
	provider *sdktrace.TracerProvider
	file     string
	temp     string // the folder of the file if nobody has named it
}

func newSpans(file string) (*spans, error) {
	s := &spans{file: file}
	if file == "" {
		var err error
		if s.temp, err = os.MkdirTemp("", "pagecache-trace-"); err != nil {
			return nil, err
		}
		s.file = filepath.Join(s.temp, "trace.json")
	}
	var err error
	if s.provider, err = otlpfile.NewProvider(service, s.file); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	otel.SetTracerProvider(s.provider) // package tracer takes it from there
	return s, nil
}

// finish closes the file, and sends it. What goes wrong there is a warning: the program has done its work even if no Jaeger
// answers.
func (s *spans) finish(r *traceReport) error {
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	err := s.provider.Shutdown(ctx)
	if err == nil {
		r.Endpoint, err = otlpfile.Send(ctx, s.file)
	}
	if err != nil {
		r.Warning = err.Error()
	}
	if s.temp == "" {
		r.File = s.file
	}
	return s.remove()
}

func (s *spans) remove() error {
	if s.temp == "" {
		return nil
	}
	return os.RemoveAll(s.temp)
}

func traceID(ctx context.Context) string { return trace.SpanContextFromContext(ctx).TraceID().String() }
