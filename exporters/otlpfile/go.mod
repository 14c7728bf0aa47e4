module github.com/alloctrace/alloctrace/exporters/otlpfile

go 1.26.0

require (
	github.com/alloctrace/alloctrace v0.1.0
	go.opentelemetry.io/otel v1.32.0
	go.opentelemetry.io/otel/sdk v1.32.0
	go.opentelemetry.io/otel/trace v1.32.0
)
