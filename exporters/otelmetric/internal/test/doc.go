// Package test has the tests of package otelmetric, in a module of its own: they send metrics by OTLP, and what they
// require for that must not reach the package's users.
package test
