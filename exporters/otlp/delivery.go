package otlp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/alloctrace/alloctrace/internal/text"
)

// A deliveryTransport posts to one URL and takes nothing for a delivery but
// the answer of an OTLP server: the OpenTelemetry exporter in front of it
// believes any 2xx, such as that of a login page. It makes the texts of
// refusals fit for an error, too.
type deliveryTransport struct {
	url  *url.URL // as it was given: the exporter would decode a %2F in it
	base http.RoundTripper
}

var _ http.RoundTripper = (*deliveryTransport)(nil)

// maxAnswer is what the OTLP specification recommends as the limit.
const maxAnswer = 4 << 20

func (t *deliveryTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	asked := r.Header.Get("Content-Type")
	to := r.WithContext(r.Context()) // a copy: the request is not ours
	to.URL = t.url
	resp, err := t.base.RoundTrip(to)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("the answer broke off: %w", err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("the answer %s is larger than %d bytes", resp.Status, maxAnswer)
	}
	kind := resp.Header.Get("Content-Type")
	if k, _, err := mime.ParseMediaType(kind); err == nil {
		kind = k
	}
	switch {
	case resp.StatusCode >= 400:
		body = []byte(refusal(kind, body))
	case resp.StatusCode >= 300:
		return nil, fmt.Errorf("the answer is %s to %q; redirects are not followed, set the endpoint to where the collector is",
			resp.Status, text.Line(resp.Header.Get("Location"), text.MaxName))
	default:
		if err := checkAnswer(asked, kind, body); err != nil {
			return nil, fmt.Errorf("the answer is %s with %w; set the endpoint to that of an OTLP collector", resp.Status, err)
		}
		resp.Header.Set("Content-Type", kind) // the exporter does not know parameters
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// checkAnswer returns nil if the body is an OTLP response of the type asked
// for. Nothing at all is one too: it is how protobuf writes an empty message.
func checkAnswer(asked, kind string, body []byte) error {
	if len(body) == 0 && kind == "" {
		return nil
	}
	if kind != asked {
		return fmt.Errorf("the content type %q instead of %q", text.Line(kind, text.MaxName), asked)
	}
	if len(body) == 0 {
		return nil
	}
	var err error
	var r collectorpb.ExportTraceServiceResponse
	if asked == "application/json" {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, &r)
	} else {
		err = proto.Unmarshal(body, &r)
	}
	if err != nil {
		return errors.New("a body that is not the response of OTLP")
	}
	return nil
}

// refusal returns the text of an answer that is an error: the message of a
// google.rpc.Status, or else the body as it is.
func refusal(kind string, body []byte) string {
	const messageField = 2
	for b := body; kind == "application/x-protobuf" && len(b) > 0; {
		field, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			break
		}
		if field == messageField && wire == protowire.BytesType {
			if message, n := protowire.ConsumeString(b[n:]); n >= 0 {
				body = []byte(message)
			}
			break
		}
		size := protowire.ConsumeFieldValue(field, wire, b[n:])
		if size < 0 {
			break
		}
		b = b[n+size:]
	}
	return text.Line(string(body), text.MaxName)
}
