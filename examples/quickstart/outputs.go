package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/exporters/pprof"
	"github.com/alloctrace/alloctrace/hooks"
)

// service is the name under which Jaeger lists the traces.
const service = "quickstart"

// The names of the files that are written.
const (
	logName   = "quickstart.log.jsonl"
	traceName = "quickstart.trace.json"
	heapName  = "quickstart.heap.pb.gz"
)

// isOutput reports whether a file has one of these names. They are not indexed.
func isOutput(name string) bool { return name == logName || name == traceName || name == heapName }

// shutdownTimeout bounds the wait for a Jaeger that is down.
const shutdownTimeout = 3 * time.Second

// outputs are what the program writes besides the standard streams: a log, and
// spans to a Jaeger or a file.
type outputs struct {
	provider  *otlp.Provider
	log       *os.File
	endpoint  string // of Jaeger, "" if there is a trace file
	traceFile string // "" if there is a Jaeger
}

// openOutputs makes the files in dir, or in a new temporary folder if that is "",
// in place of those of an earlier run. If it fails, it leaves nothing behind.
func openOutputs(ctx context.Context, dir string) (*outputs, error) {
	dir, made, err := makeDir(dir)
	if err != nil {
		return nil, err
	}
	o := &outputs{endpoint: cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))}
	if o.log, err = os.Create(filepath.Join(dir, logName)); err == nil {
		options := []otlp.Option{otlp.WithServiceName(service)}
		if o.endpoint == "" {
			o.traceFile = filepath.Join(dir, traceName)
			options = append(options, otlp.WithFile(o.traceFile))
		}
		if o.provider, err = otlp.New(ctx, options...); err == nil {
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

// makeDir makes dir unless it is there, and reports whether it did.
func makeDir(dir string) (string, bool, error) {
	if dir == "" {
		dir, err := os.MkdirTemp("", "quickstart-")
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
func (o *outputs) writeProfile(p *hooks.Profile) (name string, err error) {
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

// shutdown sends or writes the last spans. Its error is a warning: the program has
// done its work even if no Jaeger answers.
func (o *outputs) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	return o.provider.Shutdown(ctx)
}
