module github.com/alloctrace/alloctrace/exporters/otellog

go 1.26.0

require (
	github.com/alloctrace/alloctrace v0.1.0
	go.opentelemetry.io/otel v1.47.0
	go.opentelemetry.io/otel/log v1.47.0
	go.opentelemetry.io/otel/sdk v1.47.0
	go.opentelemetry.io/otel/sdk/log v1.47.0
)
