package otlpfile

import (
	"go.opentelemetry.io/otel/attribute"
	sdkresource "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// NewProvider returns a TracerProvider that writes each span when it ends to the file at path, which [Create] makes. Jaeger
// lists the spans under the name service. The provider's Shutdown closes the file, and returns an error if spans are not in it.
func NewProvider(service, path string) (*sdktrace.TracerProvider, error) {
	e, err := Create(path)
	if err != nil {
		return nil, err
	}
	return sdktrace.NewTracerProvider(sdktrace.WithSyncer(e),
		sdktrace.WithResource(sdkresource.NewSchemaless(attribute.String("service.name", service)))), nil
}
