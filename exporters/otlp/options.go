package otlp

import (
	"errors"
	"fmt"
	"time"
)

// Defaults of the options.
const (
	// DefaultQueueSize is the number of spans that may wait for delivery. It
	// holds six bursts of 10,000 spans.
	DefaultQueueSize = 1 << 16
	// DefaultTimeout bounds the sending of one batch, retries included.
	DefaultTimeout = 10 * time.Second
	// DefaultShutdownTimeout bounds ForceFlush and Shutdown when their
	// context has no deadline. It is shorter than the ten seconds that
	// container runtimes commonly wait between SIGTERM and SIGKILL.
	DefaultShutdownTimeout = 5 * time.Second
)

// A Protocol is the transport to a collector.
type Protocol int

// The protocols.
const (
	GRPC Protocol = iota + 1 // OTLP/gRPC, by custom on port 4317
	HTTP                     // OTLP/HTTP, by custom on port 4318
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

type config struct {
	endpoint string
	protocol Protocol
	service  string
	file     string
	queue    int
	timeout  time.Duration
}

// An Option changes what [New] makes. The options of this package are the
// only ones there are.
type Option func(*config) error

// WithEndpoint sets the collector's URL, for example "http://localhost:4317".
// The scheme is http or https, and means port 80 or 443 where the URL has none.
// Without a path, HTTP posts to /v1/traces; with one, the URL is taken as it
// stands. gRPC takes no path.
//
// The default comes from the environment, and is
// "http://localhost:4318", or 4317 with gRPC, when that is silent too.
func WithEndpoint(url string) Option {
	return func(c *config) error {
		if _, err := parseEndpoint(url); err != nil {
			return fmt.Errorf("WithEndpoint(%q): %w", withoutUser(url), err)
		}
		c.endpoint = url
		return nil
	}
}

// WithProtocol sets the protocol. The default comes from the environment;
// when that is silent, an endpoint on port 4317 means [GRPC], any other [HTTP].
func WithProtocol(p Protocol) Option {
	return func(c *config) error {
		if p != GRPC && p != HTTP {
			return fmt.Errorf("WithProtocol(%d): unknown protocol; use otlp.GRPC or otlp.HTTP", int(p))
		}
		c.protocol = p
		return nil
	}
}

// WithServiceName sets the name under which Jaeger lists the traces. It wins
// over OTEL_SERVICE_NAME and over service.name in OTEL_RESOURCE_ATTRIBUTES.
// Without any of them it is "unknown_service:" and the program's file name.
func WithServiceName(name string) Option {
	return func(c *config) error {
		if name == "" {
			return errors.New(`WithServiceName(""): the name is empty; leave the option out to use OTEL_SERVICE_NAME`)
		}
		c.service = name
		return nil
	}
}

// WithFile writes the spans to a file instead of sending them: OTLP/JSON, one
// request a line, which the Upload tab of Jaeger's UI opens and which any
// collector's OTLP/HTTP endpoint accepts line by line. An existing file is
// replaced. Each line is written with one call, and taken back when it does not
// fit on the disk: only a program killed in the middle of a write can leave a
// half line, and then it is the last; remove it before you open the file.
//
// Lines are appended: a program that rotates files by copying and truncating
// them, such as logrotate with copytruncate, may do so at any time. A file that
// is renamed is written on under its new name; to rotate by renaming, make a new
// provider afterwards. Ids are in lower case, as in logs.
//
// The path must name a regular file, or one that can be made, in an existing
// folder. One file belongs to one provider. WithFile cannot be combined with
// WithEndpoint or WithProtocol.
func WithFile(path string) Option {
	return func(c *config) error {
		if path == "" {
			return errors.New(`WithFile(""): the path is empty; give the path of the file to write, such as "trace.json"`)
		}
		c.file = path
		return nil
	}
}

// WithQueueSize sets how many ended spans may wait for delivery, those in the
// batch being sent included. A span that ends while that many wait is dropped
// and counted in [Stats].Dropped. The default is [DefaultQueueSize].
//
// Each place costs 16 bytes from the start, 1 MiB by default. A span that waits
// holds about 1 KiB of Go heap (measured with ten attributes): the default
// queue, filled by a dead collector, holds about 70 MB.
//
// OTEL_BSP_MAX_QUEUE_SIZE is not read, for its silent drops are what the
// queue of this package replaces.
func WithQueueSize(spans int) Option {
	return func(c *config) error {
		if spans < 1 || spans > maxQueueSize {
			return fmt.Errorf("WithQueueSize(%d): the size must be from 1 to %d spans", spans, maxQueueSize)
		}
		c.queue = spans
		return nil
	}
}

// maxQueueSize keeps a slip of the pen from reserving gigabytes at once.
const maxQueueSize = 1 << 24

// WithTimeout bounds the sending of one batch, retries included, after which
// the spans in it count as failed. It wins over OTEL_EXPORTER_OTLP_TIMEOUT
// and OTEL_BSP_EXPORT_TIMEOUT.
// The default is [DefaultTimeout].
func WithTimeout(d time.Duration) Option {
	return func(c *config) error {
		if d <= 0 {
			return fmt.Errorf("WithTimeout(%v): the timeout must be longer than zero", d)
		}
		c.timeout = d
		return nil
	}
}

func newConfig(opts []Option) (*config, error) {
	c := &config{queue: DefaultQueueSize}
	for _, o := range opts {
		if o == nil {
			continue
		}
		if err := o(c); err != nil {
			return nil, err
		}
	}
	if c.file != "" {
		if c.endpoint != "" {
			return nil, fmt.Errorf("WithFile(%q) and WithEndpoint(%q) exclude each other; use one of them", c.file, c.endpoint)
		}
		if c.protocol != 0 {
			return nil, fmt.Errorf("WithFile(%q) and WithProtocol(otlp.%s) exclude each other; leave WithProtocol out, a file has no protocol",
				c.file, map[Protocol]string{GRPC: "GRPC", HTTP: "HTTP"}[c.protocol])
		}
	}
	return c, nil
}
