package page

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestParseQuery: what a URL says is taken in, and what is wrong is an error that says what would be right.
func TestParseQuery(t *testing.T) {
	for in, want := range map[string]Query{
		"page?":                        {},
		"snapshot?at=-5":               {AtUS: -5},
		"blocks?n=7":                   {N: 7},
		"events?n=2000000":             {N: 2_000_000},
		"events?n=":                    {},
		"timeline?by=site&steps=10000": {By: "site", Steps: 10_000},
		"timeline?by=region":           {By: "region"},
		"between?from=1&to=1":          {FromUS: 1, ToUS: 1},
		"between?from=-9007199254740992&to=9007199254740992": {FromUS: -1 << 53, ToUS: 1 << 53},
		"tables?sites=1&texts=2&frames=3&nodes=4":            {Known: Known{Texts: 2, Frames: 3, Sites: 1, Nodes: 4}},
	} {
		what, query, _ := strings.Cut(in, "?")
		want.What = what
		if want.N == 0 {
			want.N = defaultRows
		}
		if want.AtUS == 0 {
			want.AtUS = Latest
		}
		if want.By == "" {
			want.By = "child"
		}
		if want.Steps == 0 {
			want.Steps = defaultSteps
		}
		if got, err := ParseQuery(what, values(t, query)); err != nil || got != want {
			t.Errorf("%s is %+v, want %+v: %v", in, got, want, err)
		}
	}
	for in, want := range map[string]string{
		"page?n=1":                          `api/page: it has no parameter "n": leave it out`,
		"blocks?n=-1":                       "api/blocks: n=\"-1\": use a number from 0 to 2000000",
		"blocks?n=2000001":                  "a number from 0",
		"events?n=1e3":                      "n=\"1e3\"",
		"snapshot?at=now":                   "microseconds since began of api/page",
		"snapshot?at=9007199254740993":      "microseconds",
		"timeline?by=proxy":                 "use site, child or region",
		"timeline?steps=0":                  "a number from 1 to 10000",
		"between?from=1":                    "use both",
		"between?":                          "use both",
		"between?from=2&to=1":               "from not after to",
		"tables?sites=x":                    "sites=\"x\"",
		"leaks?x=" + strings.Repeat("y", 9): `no parameter "x"`,
		"nothing?":                          "there is no api/nothing",
		strings.Repeat("z", 900) + "?":      "there is no api/z",
	} {
		what, query, _ := strings.Cut(in, "?")
		_, err := ParseQuery(what, values(t, query))
		var failure *Failure
		if !errors.As(err, &failure) || !strings.Contains(failure.Text, want) || len(failure.Text) > 400 || failure.Status != http.StatusBadRequest && failure.Status != http.StatusNotFound {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func values(t *testing.T, query string) url.Values {
	v, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzParseQuery: a query that is right is within its bounds.
func FuzzParseQuery(f *testing.F) {
	for _, seed := range []string{"between?from=1&to=2", "events?n=5", "tables?nodes=7", "timeline?by=site&steps=3", "snapshot?at=-1", "x?y=%zz"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		what, query, _ := strings.Cut(in, "?")
		given, _ := url.ParseQuery(query)
		q, err := ParseQuery(what, given)
		if err != nil {
			return
		}
		if q.N < 0 || q.N > maxRows || q.Steps < 1 || q.Steps > maxSteps || q.AtUS > Latest || q.AtUS < -maxUS || q.FromUS > q.ToUS || q.FromUS < -maxUS || q.ToUS > maxUS ||
			q.By != "site" && q.By != "child" && q.By != "region" || min(q.Known.Texts, q.Known.Frames, q.Known.Sites, q.Known.Nodes) < 0 {
			t.Errorf("%q is %+v", in, q)
		}
	})
}
