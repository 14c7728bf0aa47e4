package otlp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/alloctrace/alloctrace/exporters/otlpfile"
	"github.com/alloctrace/alloctrace/hooks"
)

// A Provider is a TracerProvider whose spans go to a collector or a file. Its
// methods may be called concurrently.
type Provider struct {
	embedded.TracerProvider

	tracers     trace.TracerProvider
	gate        *gate // nil if the environment has switched the export off
	ledger      *ledger
	file        lineWriter         // nil if spans are sent
	destination string             // for error messages
	giveUp      context.CancelFunc // makes every export fail at once
	life        context.Context    // ends with giveUp
	flushing    chan struct{}      // holds a token while a flush is under way
	down        chan struct{}      // closed once Shutdown is done
}

var _ trace.TracerProvider = (*Provider)(nil)

// New returns a running provider, which the caller must end with
// [Provider.Shutdown]. It does not connect; the first batch does, five seconds
// later by default.
//
// New returns an error if an option or an environment variable makes no sense, or
// the file cannot be written. The error names what is wrong and what would be
// right. Nothing is left running then, and no file is made. ctx bounds New alone.
func New(ctx context.Context, o Options) (*Provider, error) {
	p, err := newProvider(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("otlp: New: %w", err)
	}
	return p, nil
}

func newProvider(ctx context.Context, o Options) (*Provider, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	disabled, err := envDisabled()
	if err != nil {
		return nil, err
	}
	if disabled {
		return withoutExport(noop.NewTracerProvider()), nil
	}
	s, err := newSettings(ctx, &o)
	if err != nil {
		return nil, err
	}
	exporter := "otlp"
	if o.File == "" && o.Endpoint == "" {
		if exporter, err = envExporter(); err != nil {
			return nil, err
		}
	}
	if exporter == "none" {
		return withoutExport(sdktrace.NewTracerProvider(s.options()...)), nil
	}
	if o.File != "" || exporter == "console" {
		f, err := openFile(o.File, o.Rotation)
		if err != nil {
			return nil, err
		}
		timeout := cmp.Or(o.Timeout, s.timeout, DefaultTimeout)
		return startFile(f, o.QueueSize, timeout, cmp.Or(o.File, "standard output"), s), nil
	}
	client, timeout, destination, err := newClient(&o, s.batching)
	if err != nil {
		return nil, err
	}
	p, err := startClient(ctx, client, o.QueueSize, timeout, destination, s)
	if err != nil {
		client.Stop(ctx)
		return nil, fmt.Errorf("sending to %s: %w", destination, err)
	}
	return p, nil
}

// settings are what the options and the environment say about the making of
// spans and batches.
type settings struct {
	batching
	sampler  sdktrace.Sampler
	limits   sdktrace.SpanLimits
	resource *resource.Resource
}

func newSettings(ctx context.Context, o *Options) (s settings, err error) {
	if s.sampler, err = envSampler(); err != nil {
		return s, err
	}
	if s.limits, err = envLimits(); err != nil {
		return s, err
	}
	if s.batching, err = envBatching(); err != nil {
		return s, err
	}
	s.resource, err = newResource(ctx, o.ServiceName)
	return s, err
}

func (s settings) options() []sdktrace.TracerProviderOption {
	return []sdktrace.TracerProviderOption{
		sdktrace.WithSampler(s.sampler),
		sdktrace.WithRawSpanLimits(s.limits),
		sdktrace.WithResource(s.resource),
	}
}

// withoutExport returns a provider whose spans go nowhere and are not counted.
func withoutExport(tracers trace.TracerProvider) *Provider {
	return &Provider{tracers: tracers, ledger: &ledger{}}
}

// startFile returns a provider that writes to f.
func startFile(f lineWriter, queue int, timeout time.Duration, destination string, s settings) *Provider {
	p := newQueue(queue, destination)
	p.file = f
	p.start(&fileCourier{file: f, ledger: p.ledger, abort: p.life, resource: s.resource}, timeout, s)
	return p
}

// startClient returns a provider that sends by client.
func startClient(ctx context.Context, client otlptrace.Client, queue int, timeout time.Duration, destination string, s settings) (*Provider, error) {
	p := newQueue(queue, destination)
	exp, err := otlptrace.New(ctx, &courier{Client: client, ledger: p.ledger, abort: p.life, resource: protoResource(s.resource),
		tls: strings.HasPrefix(destination, "https:")})
	if err != nil {
		p.giveUp()
		return nil, err
	}
	p.start(exp, timeout, s)
	return p, nil
}

// newQueue returns a provider that lacks what makes and exports spans.
func newQueue(queue int, destination string) *Provider {
	life, giveUp := context.WithCancel(context.Background())
	return &Provider{
		ledger:      &ledger{limit: int64(queue)},
		destination: destination,
		giveUp:      giveUp,
		life:        life,
		flushing:    make(chan struct{}, 1),
		down:        make(chan struct{}),
	}
}

// start puts the gate, the SDK's batch processor and the exporter together.
func (p *Provider) start(exp sdktrace.SpanExporter, timeout time.Duration, s settings) {
	queue := int(p.ledger.limit)
	bsp := sdktrace.NewBatchSpanProcessor(exp, func(o *sdktrace.BatchSpanProcessorOptions) {
		// One place more than the gate lets in, for the mark that
		// ForceFlush puts into the queue.
		o.MaxQueueSize = queue + 1
		// A batch larger than the gate would never fill up.
		o.MaxExportBatchSize = min(s.size, queue)
		o.BatchTimeout = s.delay
		o.ExportTimeout = timeout
	})
	p.gate = &gate{ledger: p.ledger, next: bsp}
	p.tracers = sdktrace.NewTracerProvider(append(s.options(), sdktrace.WithSpanProcessor(p.gate))...)
}

// newClient also returns the time that one batch may take and where it goes.
func newClient(o *Options, b batching) (client otlptrace.Client, timeout time.Duration, destination string, err error) {
	t, err := resolveTarget(o, b)
	if err != nil {
		return nil, 0, "", err
	}
	if t.protocol == GRPC {
		client, err = newGRPCClient(t)
	} else {
		client, err = newHTTPClient(t)
	}
	return client, t.timeout, t.url, err
}

// newResource returns the attributes of the program, all of which are strings.
func newResource(ctx context.Context, service string) (*resource.Resource, error) {
	program := "go"
	if path, err := os.Executable(); err == nil {
		program = filepath.Base(path)
	}
	fromEnv, err := envResource()
	if err != nil {
		return nil, err
	}
	opts := []resource.Option{
		resource.WithAttributes(attribute.String("service.name", "unknown_service:"+program)),
		resource.WithTelemetrySDK(),
		resource.WithAttributes(fromEnv...),
	}
	if service != "" {
		opts = append(opts, resource.WithAttributes(attribute.String("service.name", service)))
	}
	return resource.New(ctx, opts...)
}

// protoResource returns the resource as it is sent. The SDK adds what it reads
// from OTEL_RESOURCE_ATTRIBUTES itself, with keys that it does not decode.
func protoResource(r *resource.Resource) *resourcepb.Resource {
	out := &resourcepb.Resource{}
	for _, kv := range r.Attributes() {
		out.Attributes = append(out.Attributes, &commonpb.KeyValue{
			Key:   string(kv.Key),
			Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: kv.Value.AsString()}},
		})
	}
	return out
}

// Tracer returns a tracer for the instrumentation scope name.
func (p *Provider) Tracer(name string, opts ...trace.TracerOption) trace.Tracer {
	return p.tracers.Tracer(name, opts...)
}

// Stats returns the counts of this moment. It is cheap: one uncontended lock.
func (p *Provider) Stats() Stats {
	s, _ := p.ledger.snapshot()
	return s
}

// FileStats returns the counts of what was written with [Options].File, or to standard output: which files were begun, and
// which were deleted with the spans in them, which Stats still has as exported. It waits for a write that is running. The
// counts are zero if spans are sent.
func (p *Provider) FileStats() otlpfile.Stats {
	if p.file == nil {
		return otlpfile.Stats{}
	}
	return p.file.Stats()
}

// Usage returns the counts as those of a hook, so that metrics can show losses: Events are the
// spans that have ended, Sampled those that were exported, and Dropped those that were lost. It
// leaves out the memory of the queue.
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

// ForceFlush sends all spans that have ended, and waits until that is done or ctx
// ends. If ctx has no deadline, it waits for [DefaultShutdownTimeout] at most. The
// error says how many spans did not arrive since the last ForceFlush, and why. If
// it is nil, all spans that had ended before are exported. If ctx ends first, the
// flush goes on in the background.
//
// While Shutdown runs, ForceFlush waits for it and returns nil: the error of
// Shutdown has the losses. After Shutdown it does nothing.
func (p *Provider) ForceFlush(ctx context.Context) error {
	if p.gate == nil {
		return nil
	}
	select {
	case <-p.down:
		return nil
	default:
	}
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
		err := p.gate.ForceFlush(p.life)
		if p.ledger.isClosed() {
			<-p.down // the processor returns at once while it shuts down
			err = nil
		}
		done <- err
		<-p.flushing
	}()
	select {
	case err := <-done:
		if p.ledger.isClosed() {
			return nil
		}
		return errors.Join(err, p.ledger.newLosses("ForceFlush", p.destination))
	case <-ctx.Done():
		return p.ledger.unfinished("ForceFlush", p.destination, ctx.Err())
	}
}

// Shutdown sends the pending spans and releases everything: connections, the file
// and all goroutines. If ctx ends first, or has no deadline and
// [DefaultShutdownTimeout] passes, it gives up the rest and counts it as failed.
// The error says how many of all the provider's spans did not arrive, and why. An
// error of the file is one of the reasons.
//
// Once Shutdown returns, no span is pending. If a file system or a pipe hangs in
// the middle of a write, Shutdown waits for it for one second at most. The write
// may still succeed later, though its spans are counted as failed.
//
// Spans that end later are dropped and counted. A later call waits until the
// first is done and returns nil. If its ctx ends before that, the first gives up
// the rest.
func (p *Provider) Shutdown(ctx context.Context) error {
	if p.gate == nil {
		return nil
	}
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	if !p.ledger.close() {
		select {
		case <-p.down:
		case <-ctx.Done():
			p.giveUp()
			<-p.down
		}
		return nil
	}
	defer close(p.down)
	done := make(chan error, 1)
	go func() { done <- p.gate.Shutdown(context.Background()) }()

	var closeErr, ctxErr error
	select {
	case closeErr = <-done:
	case <-ctx.Done():
		ctxErr = ctx.Err()
		p.giveUp()
	case <-p.life.Done(): // another call has given up
	}
	if p.life.Err() != nil {
		// Exports now fail at once, so that the counts are final in a moment.
		select {
		case closeErr = <-done:
		case <-time.After(giveUpGrace):
		}
	}
	p.giveUp()
	p.ledger.finish()
	return errors.Join(p.ledger.unfinished("Shutdown", p.destination, ctxErr), closeErr)
}

// giveUpGrace is how long Shutdown outstays its context in the worst case.
const giveUpGrace = time.Second

func withDefaultTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, DefaultShutdownTimeout)
}
