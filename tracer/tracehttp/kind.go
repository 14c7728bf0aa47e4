package tracehttp

import (
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"

	"github.com/alloctrace/alloctrace/internal/requests"
)

// A kind is what requests of one method and one pattern have in common.
type kind struct {
	*requests.Labels // the method first
	spanName         string
}

// kinds keeps kinds. A program has few, unless a router makes patterns of paths: beyond maxKinds they
// are made for each request.
type kinds struct {
	known sync.Map // of *kind, by method and pattern
	kept  atomic.Int64
}

const maxKinds = 1024

func (k *kinds) of(method, pattern string) *kind {
	key := [2]string{knownMethod(method), pattern}
	if of, ok := k.known.Load(key); ok {
		return of.(*kind)
	}
	route := routeOf(pattern)
	attributes := []attribute.KeyValue{attribute.String("http.request.method", key[0])}
	if route != "" {
		attributes = append(attributes, attribute.String("http.route", route))
	}
	of := &kind{requests.NewLabels(attributes...), spanName(method, route)}
	if k.kept.Add(1) <= maxKinds {
		k.known.Store(key, of)
	}
	return of
}
