package jaegertest

import (
	"bytes"
	"encoding/json"
	"sync"
)

// addresses are the host:port pairs that Jaeger listens on.
type addresses struct{ grpc, http, query string }

// A logReader takes Jaeger's log, one JSON object a line, reads from it where
// Jaeger listens and sends that on ready once everything runs.
type logReader struct {
	ready chan addresses
	query bool // there is a query service

	mu    sync.Mutex
	text  bytes.Buffer
	line  []byte // the one not yet ended
	addrs addresses
	sent  bool
}

func newLogReader(query bool) *logReader {
	return &logReader{ready: make(chan addresses, 1), query: query}
}

func (r *logReader) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(b)
	r.line = append(r.line, b...)
	for {
		line, rest, ok := bytes.Cut(r.line, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		r.read(line)
		r.line = rest
	}
}

func (r *logReader) read(line []byte) {
	var e struct {
		Msg       string
		Component string `json:"otelcol.component.id"`
		Endpoint  string // of a receiver
		HTTPAddr  string `json:"http_addr"` // of the query service
	}
	if json.Unmarshal(line, &e) != nil {
		return // the first line is plain text
	}
	switch {
	case e.Component == "otlp" && e.Msg == "Starting GRPC server":
		r.addrs.grpc = e.Endpoint
	case e.Component == "otlp" && e.Msg == "Starting HTTP server":
		r.addrs.http = e.Endpoint
	case e.Component == "jaeger_query" && e.Msg == "Query server started":
		r.addrs.query = e.HTTPAddr
	case e.Msg == "Everything is ready. Begin running and processing data.":
		if a := r.addrs; !r.sent && a.grpc != "" && a.http != "" && (a.query != "" || !r.query) {
			r.sent = true
			r.ready <- a
		}
	}
}

func (r *logReader) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}
