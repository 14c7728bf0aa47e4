module github.com/alloctrace/alloctrace/exporters/cmd/alloctrace

go 1.26.0

require (
	github.com/alloctrace/alloctrace v0.1.0
	github.com/alloctrace/alloctrace/exporters/otlpfile v0.1.0
	github.com/alloctrace/alloctrace/exporters/recording v0.1.0
	github.com/google/pprof v0.0.0-20241101162523-b92577c0c142
	go.opentelemetry.io/otel v1.32.0
	go.opentelemetry.io/otel/sdk v1.32.0
	go.opentelemetry.io/otel/trace v1.32.0
)

require (
	charm.land/bubbletea/v2 v2.1.1
	github.com/charmbracelet/x/ansi v0.11.9
	github.com/charmbracelet/x/vt v0.1.0
	github.com/creack/pty v1.1.24
	github.com/go-logr/logr v1.4.2 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/klauspost/compress v1.17.11 // indirect
	github.com/parquet-go/parquet-go v0.32.0
	go.opentelemetry.io/otel/metric v1.32.0 // indirect
	golang.org/x/sys v0.27.0 // indirect
	google.golang.org/protobuf v1.34.2
)
