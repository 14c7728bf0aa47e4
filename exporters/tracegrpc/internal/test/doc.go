// Package test has the tests of package tracegrpc, and those of tracer/tracehttp that need OpenTelemetry's SDK, in a module of
// its own: what they require must not reach the packages' users.
package test
