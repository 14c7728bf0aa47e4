// Package otlp makes an OpenTelemetry TracerProvider, in one call, that
// sends spans to Jaeger or any other OTLP collector by gRPC or HTTP, or
// writes them to a file that the Upload tab of Jaeger's UI opens:
//
//	p, err := otlp.New(ctx, otlp.Options{ServiceName: "indexer"})
//	if err != nil {
//		return err
//	}
//	defer p.Shutdown(ctx)
//	otel.SetTracerProvider(p) // or tracer.WithTracerProvider(p)
//
// Every sampled span that ends is counted, so that no loss goes unnoticed. After
// Shutdown these equations hold exactly:
//
//	ended = Accepted + Dropped,  Accepted = Exported + Failed
//
// A collector that is down, slow or dies does no harm to the program: ending a
// span never waits for the network, the queue is bounded (see
// [Options].QueueSize for its memory), and Shutdown is bounded by its context or
// by [DefaultShutdownTimeout].
//
// # What counts as delivered
//
// By HTTP, spans are exported if the answer is a 2xx whose body is the OTLP
// response in the content type of the request, or is empty. With any other
// answer, such as a login page, they have failed. Redirects are not followed,
// because they would send the headers, and the keys in them, to another host. If
// a collector rejects some spans of a batch, those have failed.
//
// A batch of more than 2 MiB is sent in several requests, so that it fits into
// the 4 MiB that a collector takes by gRPC by default.
//
// # Strings
//
// Every string is sent as valid UTF-8, because a receiver refuses all spans of a
// batch if one string is not valid. Each byte that is not valid becomes U+FFFD.
// Names and attribute keys are cut to 1 KiB; attribute values and the
// descriptions of statuses to 16 KiB. A string that was cut ends in "…". If keys
// of one span become equal, they get a number, as in "key#2".
//
// # Environment
//
// Options override variables, variables for traces override those for all
// signals, and variables override defaults. A blank value counts as unset. Words
// may be in lower and upper case. Numbers go up to 2147483647, and times are
// whole milliseconds.
//
// [New] returns an error if a value makes no sense. The error names the variable,
// the value and what would be right. It shows no value of a header and no
// password in a URL. The OpenTelemetry specification wants such values ignored
// with a warning, but this package has no log.
//
//	OTEL_SDK_DISABLED                  true: spans are neither made nor counted,
//	                                     no other variable is read, and no file
//	                                     is made; or false
//	OTEL_TRACES_EXPORTER               otlp, the default; console (or otlp/stdout)
//	                                     for OTLP/JSON lines on standard output;
//	                                     none: spans are made, but go nowhere and
//	                                     are not counted. Options.File and
//	                                     Options.Endpoint override it
//	OTEL_TRACES_SAMPLER                always_on, always_off or traceidratio, alone
//	                                     or after parentbased_; by default
//	                                     parentbased_always_on
//	OTEL_TRACES_SAMPLER_ARG            for traceidratio, from 0 to 1; 1 by default
//	OTEL_SERVICE_NAME                  service name
//	OTEL_RESOURCE_ATTRIBUTES           key=value,key=value with percent encoding;
//	                                     empty members are passed over
//	OTEL_BSP_SCHEDULE_DELAY            milliseconds until a batch that is not full
//	                                     is sent, 5000 by default; less than 10 is 10
//	OTEL_BSP_MAX_EXPORT_BATCH_SIZE     spans in a batch, 512 by default; no more
//	                                     than the queue has places
//	OTEL_BSP_EXPORT_TIMEOUT            milliseconds for one batch; the shorter of
//	                                     this and the timeout below holds
//	OTEL_BSP_MAX_QUEUE_SIZE            not read: use Options.QueueSize
//	OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT,   attributes of a span, 128 by default
//	OTEL_ATTRIBUTE_COUNT_LIMIT
//	OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT,  characters of an attribute's value,
//	OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT          unlimited by default
//	OTEL_SPAN_EVENT_COUNT_LIMIT        events of a span, 128 by default
//	OTEL_SPAN_LINK_COUNT_LIMIT         links of a span, 128 by default
//	OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT   attributes of an event, 128 by default
//	OTEL_LINK_ATTRIBUTE_COUNT_LIMIT    attributes of a link, 128 by default
//	OTEL_LOG_LEVEL, OTEL_PROPAGATORS,  not read: this package neither logs nor
//	OTEL_CONFIG_FILE, OTEL_ENTITIES      propagates, and reads no file of settings
//
// Those for where spans go have no effect with [Options].File or another exporter than
// otlp. Each has a form for traces, such as OTEL_EXPORTER_OTLP_TRACES_TIMEOUT:
//
//	OTEL_EXPORTER_OTLP_ENDPOINT            http or https URL. HTTP adds v1/traces to
//	                                         the path; with _TRACES_ the URL is taken
//	                                         as it is. gRPC takes no path
//	OTEL_EXPORTER_OTLP_PROTOCOL            grpc, http/protobuf or http/json
//	OTEL_EXPORTER_OTLP_TIMEOUT             milliseconds for one batch with all
//	                                         retries, 10000 by default; 0: no limit
//	OTEL_EXPORTER_OTLP_HEADERS             key=value,key=value with percent encoding
//	OTEL_EXPORTER_OTLP_COMPRESSION         gzip or none
//	OTEL_EXPORTER_OTLP_CERTIFICATE         PEM file of whom to trust with https,
//	                                         instead of the system's authorities
//	OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, PEM files of who this program is, both or
//	OTEL_EXPORTER_OTLP_CLIENT_KEY            none
//	OTEL_EXPORTER_OTLP_INSECURE            not read: the scheme of the URL alone
//	                                         decides on TLS
package otlp
