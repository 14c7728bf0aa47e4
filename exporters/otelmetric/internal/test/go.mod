module github.com/alloctrace/alloctrace/exporters/otelmetric/internal/test

go 1.26.0

require (
	github.com/alloctrace/alloctrace v0.1.0
	github.com/alloctrace/alloctrace/exporters v0.1.0
	github.com/alloctrace/alloctrace/exporters/otelmetric v0.1.0
	go.opentelemetry.io/otel v1.32.0
	go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp v1.32.0
	go.opentelemetry.io/otel/metric v1.32.0
	go.opentelemetry.io/otel/sdk v1.32.0
	go.opentelemetry.io/otel/sdk/metric v1.32.0
	go.opentelemetry.io/proto/otlp v1.3.1
	google.golang.org/protobuf v1.35.1
)
