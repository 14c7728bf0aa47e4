package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/alloctrace/alloctrace/exporters/otlpfile"
	"github.com/alloctrace/alloctrace/exporters/pprof"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// service is the name under which Jaeger lists the traces.
const service = "indexer"

// The names of the files that are written.
const (
	logName   = "indexer.log.jsonl"
	traceName = "indexer.trace.json"
	heapName  = "indexer.heap.pb.gz"
)

// isOutput reports whether a file has one of these names. They are not indexed.
func isOutput(name string) bool { return name == logName || name == traceName || name == heapName }

// shutdownTimeout bounds the sending of the trace to Jaeger, which may be down.
const shutdownTimeout = 3 * time.Second

// outputs are what the program writes besides the standard streams: a log and spans.
type outputs struct {
	log      *os.File
	provider *sdktrace.TracerProvider // of spans that are written as they end
}

// openOutputs makes the files in dir, or in a new temporary folder if that is "",
// in place of those of an earlier run. If it fails, it leaves nothing behind.
func openOutputs(dir string) (*outputs, error) {
	dir, made, err := makeDir(dir)
	if err != nil {
		return nil, err
	}
	o := &outputs{}
	if o.log, err = os.Create(filepath.Join(dir, logName)); err == nil {
		if o.provider, err = otlpfile.NewProvider(service, o.traceFile()); err == nil {
			return o, nil
		}
		o.log.Close()
		os.Remove(o.log.Name())
	}
	if made {
		os.Remove(dir)
	}
	return nil, err
}

func (o *outputs) traceFile() string { return filepath.Join(filepath.Dir(o.log.Name()), traceName) }

// makeDir makes dir unless it is there, and reports whether it did.
func makeDir(dir string) (string, bool, error) {
	if dir == "" {
		dir, err := os.MkdirTemp("", "indexer-")
		return dir, err == nil, err
	}
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return dir, false, nil
	}
	return dir, err == nil, err
}

// writeProfile writes what is in use now, on Go's heap and outside, for go tool pprof, and
// returns where.
func (o *outputs) writeProfile(p *heapprofile.Profile) (name string, err error) {
	f, err := os.Create(filepath.Join(filepath.Dir(o.log.Name()), heapName))
	if err != nil {
		return "", err
	}
	return f.Name(), errors.Join(pprof.WriteCombined(f, p), f.Close())
}

// logger writes to the log.
func (o *outputs) logger() zerolog.Logger {
	return zerolog.New(o.log).With().Timestamp().Str("allocator", service).Logger()
}

// finishTrace closes the trace file and sends it to Jaeger, if there is one. What goes wrong is a warning: the program has
// done its work even if no Jaeger answers.
func (o *outputs) finishTrace(r *traceReport) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := o.provider.Shutdown(ctx)
	if err == nil {
		r.File = o.traceFile()
		r.Endpoint, err = otlpfile.Send(ctx, r.File)
	}
	if err != nil {
		r.Warning = err.Error()
	}
}
