module github.com/alloctrace/alloctrace/exporters/recording

go 1.26.0

require (
	github.com/alloctrace/alloctrace v0.1.0
	github.com/klauspost/compress v1.17.11
)

require (
	github.com/go-logr/logr v1.4.2 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	go.opentelemetry.io/otel v1.32.0 // indirect
	go.opentelemetry.io/otel/metric v1.32.0 // indirect
	go.opentelemetry.io/otel/trace v1.32.0 // indirect
	golang.org/x/sys v0.27.0 // indirect
)
