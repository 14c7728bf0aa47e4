package otlp

import (
	"fmt"
	"strings"
)

// envHeaders reads the headers that go with each request. Their names are in
// lower case, as HTTP/2 and gRPC have them.
func envHeaders(p Protocol) (map[string]string, error) {
	name, list := lookupOTLP("HEADERS")
	source := fmt.Sprintf("%s=%q", name, withoutValues(list))
	pairs, err := members(source, list)
	if err != nil || len(pairs) == 0 {
		return nil, err
	}
	headers := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value := strings.ToLower(pair[0]), pair[1]
		if !isHeaderName(key, p) {
			return nil, fmt.Errorf("%s: %q is not the name of a header by %v; use letters, digits and hyphens", source, key, p)
		}
		if !isHeaderValue(key, value, p) {
			return nil, fmt.Errorf("%s: the value of %q has a character that no header by %v can have; use printable ASCII", source, key, p)
		}
		headers[key] = value
	}
	return headers, nil
}

// withoutValues makes a list of headers fit for an error text: their values are
// secrets.
func withoutValues(list string) string {
	members := strings.Split(list, ",")
	for i, m := range members {
		m = strings.TrimSpace(m)
		if end := strings.IndexAny(m, "=: \t"); end >= 0 {
			m = m[:end+1] + "…"
		}
		members[i] = m
	}
	return strings.Join(members, ",")
}

// isHeaderName reports whether name, in lower case, is a token of RFC 9110, or
// what is left of that for the metadata of gRPC.
func isHeaderName(name string, p Protocol) bool {
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', strings.IndexByte("-_.", c) >= 0:
		case p == HTTP && strings.IndexByte("!#$%&'*+^`|~", c) >= 0:
		default:
			return false
		}
	}
	return name != ""
}

// isHeaderValue reports whether a request with that header would be sent.
func isHeaderValue(name, value string, p Protocol) bool {
	if p == GRPC && strings.HasSuffix(name, "-bin") {
		return true // gRPC encodes it
	}
	for _, c := range []byte(value) {
		if p == GRPC && c > '~' || c < ' ' && !(p == HTTP && c == '\t') || c == '\x7f' {
			return false
		}
	}
	return true
}
