package otlp

import (
	"fmt"
	"time"

	"github.com/alloctrace/alloctrace/exporters/otlpfile"
)

// The defaults of [Options].
const (
	// DefaultQueueSize is the number of spans that may wait for delivery. It
	// holds six bursts of 10,000 spans.
	DefaultQueueSize = 1 << 16
	// DefaultTimeout bounds the sending of one batch, retries included.
	DefaultTimeout = 10 * time.Second
	// DefaultShutdownTimeout bounds ForceFlush and Shutdown if their
	// context has no deadline. It is shorter than the ten seconds that
	// container runtimes commonly wait between SIGTERM and SIGKILL.
	DefaultShutdownTimeout = 5 * time.Second
)

// A Protocol is the transport to a collector.
type Protocol int

// The protocols.
const (
	GRPC Protocol = iota + 1 // OTLP/gRPC, usually on port 4317
	HTTP                     // OTLP/HTTP, usually on port 4318
)

// String returns "grpc", "http", or the number of an unknown protocol.
func (p Protocol) String() string {
	switch p {
	case GRPC:
		return "grpc"
	case HTTP:
		return "http"
	}
	return fmt.Sprintf("Protocol(%d)", int(p))
}

// Options configure [New]. What is zero is taken from the environment, or else has its default. A field that is set
// overrides its variables of the environment.
type Options struct {
	// Endpoint is the collector's URL, for example "http://localhost:4317". The scheme is http or https, and
	// means port 80 or 443 if the URL has none. Without a path, HTTP posts to /v1/traces; with one, the URL is
	// used as it is. gRPC takes no path. The default is "http://localhost:4318", or 4317 with gRPC.
	Endpoint string

	// Protocol is the transport. The default is [GRPC] if the endpoint has port 4317, else [HTTP].
	Protocol Protocol

	// ServiceName is the name under which Jaeger lists the traces. It overrides OTEL_SERVICE_NAME and
	// service.name in OTEL_RESOURCE_ATTRIBUTES. The default is "unknown_service:" and the program's file name.
	ServiceName string

	// File is the path of a file to which the spans are written instead of being sent: OTLP/JSON, one request
	// a line. The Upload tab of Jaeger's UI opens it, and any collector's OTLP/HTTP endpoint accepts each line.
	// An existing file is replaced. File excludes Endpoint and Protocol.
	//
	// [otlpfile.Create] makes the file, and says what happens on a full disk, when the program is killed, and when another
	// program truncates or renames the file, or writes to it too. Ids are in lower case, as in logs.
	//
	// The path must name a regular file, or one that can be made in an existing folder. One file belongs to
	// one provider.
	File string

	// Rotation has [otlpfile.CreateRotating] write several files beside the path File, with times in their names, and bound
	// their bytes. Files of earlier runs are then kept. It needs File. If it is zero, there is one file without a bound.
	Rotation otlpfile.Rotation

	// QueueSize is how many ended spans may wait for delivery, those in the batch being sent included. A span
	// that ends while that many wait is dropped and counted in [Stats].Dropped. The default is [DefaultQueueSize].
	//
	// Each place costs 16 bytes from the start, 1 MiB by default. A span that waits holds about 1 KiB of Go heap
	// (measured with ten attributes): the default queue, filled because the collector is down, holds about 70 MB.
	// OTEL_BSP_MAX_QUEUE_SIZE is not read, because the SDK's queue drops spans without counting them.
	QueueSize int

	// Timeout bounds the sending of one batch, retries included. After it the batch's spans count as failed. It
	// overrides OTEL_EXPORTER_OTLP_TIMEOUT and OTEL_BSP_EXPORT_TIMEOUT. The default is [DefaultTimeout].
	Timeout time.Duration
}

// maxQueueSize keeps a typing error from reserving gigabytes at once.
const maxQueueSize = 1 << 24

// complete checks o and sets the queue's size if it is zero. What else is zero depends on the environment.
func (o *Options) complete() error {
	if o.QueueSize == 0 {
		o.QueueSize = DefaultQueueSize
	}
	if o.Endpoint != "" {
		if _, err := parseEndpoint(o.Endpoint); err != nil {
			return fmt.Errorf("Options.Endpoint=%q: %w", withoutUser(o.Endpoint), err)
		}
	}
	switch {
	case o.Protocol != 0 && o.Protocol != GRPC && o.Protocol != HTTP:
		return fmt.Errorf("Options.Protocol=%d: unknown protocol; use otlp.GRPC or otlp.HTTP", int(o.Protocol))
	case o.QueueSize < 1 || o.QueueSize > maxQueueSize:
		return fmt.Errorf("Options.QueueSize=%d: the size must be from 1 to %d spans, or 0 for the default", o.QueueSize, maxQueueSize)
	case o.Timeout < 0:
		return fmt.Errorf("Options.Timeout=%v: the timeout must be longer than zero, or 0 for the default", o.Timeout)
	case o.File != "" && o.Endpoint != "":
		return fmt.Errorf("Options.File=%q and Options.Endpoint=%q exclude each other; use one of them", o.File, o.Endpoint)
	case o.File == "" && o.Rotation != (otlpfile.Rotation{}):
		return fmt.Errorf("Options.Rotation=%+v without Options.File; set File to the path of the files", o.Rotation)
	case o.File != "" && o.Protocol != 0:
		return fmt.Errorf("Options.File=%q and Options.Protocol=%v exclude each other; leave Protocol out, a file has no protocol", o.File, o.Protocol)
	}
	return nil
}
