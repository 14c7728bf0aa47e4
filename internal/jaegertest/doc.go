// Package jaegertest runs a real Jaeger for a test. It is of use in tests
// alone: it reports to a testing.TB and keeps traces in memory.
//
//	j := jaegertest.Start(t)
//	p, err := otlp.New(t.Context(), otlp.Options{Endpoint: j.GRPCEndpoint(), Protocol: otlp.GRPC})
//	… make spans, p.Shutdown …
//	spans := j.Trace(traceID, 3)
//
// # Where the binary comes from
//
// [Start] takes the first of these that there is:
//
//  1. the file named by the environment variable ALLOCTRACE_JAEGER,
//  2. a program jaeger on the PATH, which must be version 2.13 or near it,
//  3. the one in the cache: $ALLOCTRACE_CACHE, by default the folder
//     alloctrace in the user's cache folder, and there
//     jaeger-v1.76.0/<GOOS>-<GOARCH>/jaeger.
//
// Without any of them Start builds one into the cache from the Go module of
// Jaeger. That takes from 4 to 10 minutes the first time, more than go test
// allows by default, so do it before:
//
//	go run ./internal/jaegertest/buildjaeger
package jaegertest
