package otlp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"

	"github.com/alloctrace/alloctrace/hooks"
)

// A Provider is a TracerProvider whose spans go to a collector or a file. Its
// methods may be called concurrently.
type Provider struct {
	embedded.TracerProvider

	sdk         *sdktrace.TracerProvider
	gate        *gate
	ledger      *ledger
	destination string             // for error messages
	giveUp      context.CancelFunc // makes every export fail at once
	life        context.Context    // ends with giveUp
	flushing    chan struct{}      // holds a token while a flush is under way
}

var _ trace.TracerProvider = (*Provider)(nil)

// New returns a running provider, which the caller must end with
// [Provider.Shutdown]. It does not connect; the first batch does, five seconds
// later by default.
//
// The error, for an option or an environment variable that makes no sense or
// a file that cannot be written, names what is wrong and what would be right;
// nothing is left running then, and no file is made. ctx bounds New alone.
func New(ctx context.Context, opts ...Option) (*Provider, error) {
	p, err := newProvider(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("otlp.New: %w", err)
	}
	return p, nil
}

func newProvider(ctx context.Context, opts []Option) (*Provider, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	res, err := newResource(ctx, c.service)
	if err != nil {
		return nil, err
	}
	exp, timeout, destination, err := newExporter(ctx, c)
	if err != nil {
		return nil, err
	}

	return start(exp, c.queue, timeout, destination, res), nil
}

// start puts the gate, the SDK's batch processor and exp together.
func start(exp sdktrace.SpanExporter, queue int, timeout time.Duration, destination string, res *resource.Resource) *Provider {
	life, giveUp := context.WithCancel(context.Background())
	led := &ledger{limit: int64(queue)}
	bsp := sdktrace.NewBatchSpanProcessor(
		&countingExporter{ledger: led, inner: exp, abort: life},
		func(o *sdktrace.BatchSpanProcessorOptions) {
			// One place more than the gate lets in, for the mark that
			// ForceFlush puts into the queue.
			o.MaxQueueSize = queue + 1
			// A batch larger than the gate would never fill up.
			o.MaxExportBatchSize = min(o.MaxExportBatchSize, queue)
			o.ExportTimeout = timeout
		},
	)
	g := &gate{ledger: led, next: bsp}
	return &Provider{
		sdk:         sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithSpanProcessor(g)),
		gate:        g,
		ledger:      led,
		destination: destination,
		giveUp:      giveUp,
		life:        life,
		flushing:    make(chan struct{}, 1),
	}
}

// newExporter also returns the time that one batch may take and where it goes.
func newExporter(ctx context.Context, c *config) (sdktrace.SpanExporter, time.Duration, string, error) {
	if c.file != "" {
		timeout := c.timeout
		if timeout == 0 {
			timeout = DefaultTimeout
		}
		f, err := createFile(c.file)
		if err != nil {
			return nil, 0, "", err
		}
		exp, err := newFileExporter(ctx, f, timeout)
		return exp, timeout, c.file, err
	}
	t, err := resolveTarget(c)
	if err != nil {
		return nil, 0, "", err
	}
	build := newHTTPExporter
	if t.protocol == GRPC {
		build = newGRPCExporter
	}
	exp, err := build(ctx, t)
	return exp, t.timeout, t.url, err
}

func newResource(ctx context.Context, service string) (*resource.Resource, error) {
	program := "go"
	if path, err := os.Executable(); err == nil {
		program = filepath.Base(path)
	}
	opts := []resource.Option{
		resource.WithAttributes(attribute.String("service.name", "unknown_service:"+program)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
	}
	if service != "" {
		opts = append(opts, resource.WithAttributes(attribute.String("service.name", service)))
	}
	res, err := resource.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES=%q: %w; write it as key=value,key=value", os.Getenv("OTEL_RESOURCE_ATTRIBUTES"), err)
	}
	return res, nil
}

// Tracer returns a tracer for the instrumentation scope name.
func (p *Provider) Tracer(name string, opts ...trace.TracerOption) trace.Tracer {
	return p.sdk.Tracer(name, opts...)
}

// Stats returns the counts of this moment. It is cheap: one uncontended lock.
func (p *Provider) Stats() Stats {
	s, _ := p.ledger.snapshot()
	return s
}

// Usage returns the counts as a hook's, for metrics of what is lost: Events are the spans that
// have ended, Sampled those that have arrived. It does not say what the queue takes.
func (p *Provider) Usage() hooks.Usage {
	s := p.Stats()
	return hooks.Usage{Events: s.Accepted + s.Dropped, Sampled: s.Exported, Dropped: s.Lost()}
}

var _ hooks.UsageSource = (*Provider)(nil)

// Err returns the newest reason for which spans failed, or nil. It is never
// cleared: compare [Stats].Failed over time to see whether it still applies.
func (p *Provider) Err() error {
	_, err := p.ledger.snapshot()
	return err
}

// ForceFlush sends all spans that have ended and waits until that is done or
// ctx ends; without a deadline in ctx it waits for [DefaultShutdownTimeout] at
// most. It returns an error that tells how many spans did not arrive since the
// last ForceFlush, and why. A flush cut short by ctx goes on behind the scene.
// After Shutdown it does nothing.
func (p *Provider) ForceFlush(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	// One flush at a time: its mark in the queue has one place reserved.
	select {
	case p.flushing <- struct{}{}:
	case <-ctx.Done():
		return p.ledger.unfinished("ForceFlush", p.destination, ctx.Err())
	}
	done := make(chan error, 1)
	go func() {
		done <- p.gate.ForceFlush(p.life)
		<-p.flushing
	}()
	select {
	case err := <-done:
		if p.life.Err() != nil {
			return nil // shut down meanwhile, and that call tells what was lost
		}
		return errors.Join(err, p.ledger.newLosses("ForceFlush", p.destination))
	case <-ctx.Done():
		return p.ledger.unfinished("ForceFlush", p.destination, ctx.Err())
	}
}

// Shutdown sends what is left and releases everything: connections, the file
// and all goroutines. When ctx ends first, or [DefaultShutdownTimeout] has
// passed for a ctx without a deadline, it gives up what is left, counting it
// as failed. It returns an error that tells how many of all the provider's
// spans did not arrive, and why; an error of the file is among the reasons.
//
// Spans that end later are dropped and counted. Later calls do nothing and
// return nil.
func (p *Provider) Shutdown(ctx context.Context) error {
	if !p.ledger.close() {
		return nil
	}
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.gate.Shutdown(context.Background()) }()

	var closeErr error
	select {
	case closeErr = <-done:
	case <-ctx.Done():
		p.giveUp()
		// Exports now fail at once, so that the counts are final in a moment.
		// Only a file system that hangs can hold them up; it is not waited for.
		select {
		case closeErr = <-done:
		case <-time.After(giveUpGrace):
		}
	}
	p.giveUp()
	return errors.Join(p.ledger.unfinished("Shutdown", p.destination, ctx.Err()), closeErr)
}

// giveUpGrace is how long Shutdown outstays its context in the worst case.
const giveUpGrace = time.Second

func withDefaultTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, DefaultShutdownTimeout)
}
