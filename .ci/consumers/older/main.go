// Older is a program that had gRPC, OpenTelemetry's SDK and client_golang before it got alloctrace.
package main

import (
	"context"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otelmetric"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
	"github.com/alloctrace/alloctrace/tracer"
)

func main() {
	grpc.NewServer().Stop()
	ctx := context.Background()
	traces := sdktrace.NewTracerProvider()
	metrics := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))

	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("cache"))
	registration, err := otelmetric.Register(mem, otelmetric.WithMeterProvider(metrics))
	if err != nil {
		panic(err)
	}
	defer registration.Close()
	_, region := tracer.Start(ctx, "load", mem, tracer.WithTracerProvider(traces))
	region.End()
	reg := prometheus.NewRegistry()
	reg.MustRegister(allocprom.NewCollector(mem, "cache", allocprom.Options{}))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "allocator_memory_used_bytes") {
		panic(w.Body.String())
	}
}
