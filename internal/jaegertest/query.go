package jaegertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// errNotFound is Jaeger's answer for a trace that it does not have, or not yet.
var errNotFound = errors.New("not found")

// Services returns the names of the services that have sent spans.
func (j *Jaeger) Services() []string {
	j.tb.Helper()
	var r struct{ Services []string }
	if err := j.get("/api/v3/services", nil, &r); err != nil {
		j.tb.Fatalf("jaegertest.Services: %v", err)
	}
	return r.Services
}

// Trace returns the trace with that id, in hex, once it has n spans or more.
// It waits for a minute at most and then fails the test.
func (j *Jaeger) Trace(id string, n int) Trace {
	j.tb.Helper()
	var found Trace
	err := j.poll(func() (bool, error) {
		traces, err := j.traces("/api/v3/traces/"+url.PathEscape(id), url.Values{"raw_traces": {"true"}})
		if len(traces) > 0 {
			found = traces[0]
		}
		return len(found) >= n, err
	})
	if err != nil {
		j.tb.Fatalf("jaegertest.Trace(%s): %d spans, want %d: %v", id, len(found), n, err)
	}
	return found
}

// FindTraces returns every trace with a span of that service, ordered by their
// start, once there is one. It waits for a minute at most and then fails the
// test.
func (j *Jaeger) FindTraces(service string) []Trace {
	j.tb.Helper()
	var found []Trace
	err := j.poll(func() (ok bool, err error) {
		now := time.Now()
		found, err = j.traces("/api/v3/traces", url.Values{
			"query.service_name":   {service},
			"query.start_time_min": {now.Add(-24 * time.Hour).UTC().Format(time.RFC3339Nano)},
			"query.start_time_max": {now.Add(time.Hour).UTC().Format(time.RFC3339Nano)},
			"query.num_traces":     {strconv.Itoa(maxTraces)},
			"query.raw_traces":     {"true"},
		})
		return len(found) > 0, err
	})
	if err != nil {
		j.tb.Fatalf("jaegertest.FindTraces(%q): %v", service, err)
	}
	return found
}

// poll calls f until it reports success or an error other than errNotFound.
func (j *Jaeger) poll(f func() (ok bool, err error)) error {
	ctx, cancel := context.WithTimeout(j.tb.Context(), deadline)
	defer cancel()
	for {
		ok, err := f()
		if err != nil && !errors.Is(err, errNotFound) || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// get decodes an answer of the query service into v.
func (j *Jaeger) get(path string, query url.Values, v any) error {
	req, err := http.NewRequestWithContext(j.tb.Context(), http.MethodGet, j.QueryURL()+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := j.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w", path, errNotFound)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s: %.500s", path, resp.Status, body)
	}
	return json.Unmarshal(body, v)
}

func (j *Jaeger) traces(path string, query url.Values) ([]Trace, error) {
	var r struct{ Result tracesJSON }
	if err := j.get(path, query, &r); err != nil {
		return nil, err
	}
	return r.Result.traces()
}

// FindTagged returns every trace with a span of that service that has an attribute of that value, as
// the search form of the user interface finds it, once there is one. It waits for a minute at most and
// then fails the test.
func (j *Jaeger) FindTagged(service, key, value string) []Trace {
	j.tb.Helper()
	tags, err := json.Marshal(map[string]string{key: value})
	if err != nil {
		j.tb.Fatal(err)
	}
	var found []Trace
	err = j.poll(func() (bool, error) {
		var r struct {
			Data []struct {
				TraceID string
				Spans   []struct{}
			}
		}
		now := time.Now()
		if err := j.get("/api/traces", url.Values{
			"service": {service}, "tags": {string(tags)}, "limit": {strconv.Itoa(maxTraces)},
			"start": {strconv.FormatInt(now.Add(-24*time.Hour).UnixMicro(), 10)}, "end": {strconv.FormatInt(now.Add(time.Hour).UnixMicro(), 10)},
		}, &r); err != nil {
			return false, err
		}
		for _, t := range r.Data {
			found = append(found, j.Trace(t.TraceID, len(t.Spans)))
		}
		return len(found) > 0, nil
	})
	if err != nil {
		j.tb.Fatalf("jaegertest.FindTagged(%q, %s=%s): %v", service, key, value, err)
	}
	return found
}
