package jaegertest

import "fmt"

// configYAML leaves all that is not needed out of Jaeger: no batch processor,
// so that spans are there as soon as they were taken, and no health or
// metrics port, so that several can run. Port 0 lets the system choose a free
// port, which Jaeger logs.
func configYAML(o options) string {
	ui := ""
	if o.ui != "" {
		ui = fmt.Sprintf("    ui:\n      assets_path: %q\n", o.ui)
	}
	return `service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [jaeger_storage_exporter]
  telemetry:
    metrics:
      level: none
    logs:
      level: info
      encoding: json
extensions:
  jaeger_storage:
    backends:
      memory:
        memory:
          max_traces: ` + fmt.Sprint(maxTraces) + `
  jaeger_query:
    storage:
      traces: memory
    http:
      endpoint: 127.0.0.1:0
    grpc:
      endpoint: 127.0.0.1:0
` + ui + `receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 127.0.0.1:0
        max_recv_msg_size_mib: 64
      http:
        endpoint: 127.0.0.1:0
exporters:
  jaeger_storage_exporter:
    trace_storage: memory
`
}

// telemetryYAML is what of it the logReader needs.
const telemetryYAML = `service:
  telemetry:
    metrics:
      level: none
    logs:
      level: info
      encoding: json
`

// maxTraces is how many traces Jaeger keeps before it forgets the oldest.
const maxTraces = 100_000
