// Package otlp makes an OpenTelemetry TracerProvider, in one call, that
// sends spans to Jaeger or any other OTLP collector by gRPC or HTTP, or
// writes them to a file that the Upload tab of Jaeger's UI opens:
//
//	p, err := otlp.New(ctx, otlp.WithServiceName("indexer"))
//	if err != nil {
//		return err
//	}
//	defer p.Shutdown(ctx)
//	otel.SetTracerProvider(p) // or tracer.WithTracerProvider(p)
//
// No span is lost in silence. Every sampled span that ends is counted, and
// once the provider is shut down
//
//	ended = Accepted + Dropped,  Accepted = Exported + Failed
//
// holds to the span. A program is not harmed by a collector that is down,
// slow or dies: ending a span never waits for the network, the queue is
// bounded (see [WithQueueSize] for its memory), and Shutdown is bounded by
// its context or by [DefaultShutdownTimeout].
//
// # Environment
//
// Options win over variables, and variables over defaults.
//
//	OTEL_EXPORTER_OTLP_ENDPOINT            base URL; HTTP adds /v1/traces
//	OTEL_EXPORTER_OTLP_TRACES_ENDPOINT     URL taken as it stands
//	OTEL_EXPORTER_OTLP[_TRACES]_PROTOCOL   grpc, http/protobuf or http/json
//	OTEL_EXPORTER_OTLP[_TRACES]_TIMEOUT    milliseconds for one batch
//	OTEL_EXPORTER_OTLP[_TRACES]_HEADERS, _COMPRESSION, _CERTIFICATE,
//	  _CLIENT_CERTIFICATE, _CLIENT_KEY     read by the OpenTelemetry exporter
//	OTEL_SERVICE_NAME                      service name
//	OTEL_RESOURCE_ATTRIBUTES               k=v,k=v
//	OTEL_TRACES_SAMPLER[_ARG], OTEL_SPAN_*, OTEL_BSP_SCHEDULE_DELAY,
//	  OTEL_BSP_MAX_EXPORT_BATCH_SIZE       read by the OpenTelemetry SDK
//
// The scheme of the URL alone decides on TLS: OTEL_EXPORTER_OTLP_INSECURE is
// not needed. With [WithFile] the OTEL_EXPORTER_OTLP_* variables have no say.
package otlp
