package page

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// A Query is what somebody asks for.
type Query struct {
	What         string
	N            int   // rows
	AtUS         int64 // Latest is the end
	FromUS, ToUS int64 // a span of time
	By           string
	Steps        int
	Known        Known
}

// Latest is the moment of the end.
const Latest = maxUS + 1

// maxUS is the largest time that a parameter can be: a float64 has those up to it exactly.
const maxUS = MaxNumber

// The defaults and bounds of parameters.
const (
	maxRows      = 2_000_000
	defaultRows  = 100_000
	defaultSteps = 400
	maxSteps     = 10_000
)

// A parameter of a query says what is right, and takes in a value, or reports that it is wrong.
type parameter struct {
	name, right string
	take        func(q *Query, v string) bool
}

func number(name string, least, most int, field func(q *Query) *int) parameter {
	return parameter{name, fmt.Sprintf("a number from %d to %d", least, most), func(q *Query, v string) bool {
		n, err := strconv.Atoi(v)
		*field(q) = n
		return err == nil && least <= n && n <= most
	}}
}

func moment(name string, field func(q *Query) *int64) parameter {
	return parameter{name, "microseconds since began of api/page", func(q *Query, v string) bool {
		n, err := strconv.ParseInt(v, 10, 64)
		*field(q) = n
		return err == nil && -maxUS <= n && n <= maxUS
	}}
}

var rows = []parameter{number("n", 0, maxRows, func(q *Query) *int { return &q.N })}

// parameters are those of each answer.
var parameters = map[string][]parameter{
	GetPage: nil, GetMap: nil, GetLifetimes: nil, GetLeaks: nil, PostMark: nil, PostUnreachable: nil,
	GetTables: {
		number("texts", 0, 1<<30, func(q *Query) *int { return &q.Known.Texts }),
		number("frames", 0, 1<<30, func(q *Query) *int { return &q.Known.Frames }),
		number("sites", 0, 1<<30, func(q *Query) *int { return &q.Known.Sites }),
		number("nodes", 0, 1<<30, func(q *Query) *int { return &q.Known.Nodes }),
	},
	GetSnapshot: {moment("at", func(q *Query) *int64 { return &q.AtUS })},
	GetBlocks:   rows,
	GetEvents:   rows,
	GetTimeline: {
		{"by", "site, child or region", func(q *Query, v string) bool {
			q.By = v
			return v == "site" || v == "child" || v == "region"
		}},
		number("steps", 1, maxSteps, func(q *Query) *int { return &q.Steps }),
	},
	GetBetween: {
		moment("from", func(q *Query) *int64 { return &q.FromUS }),
		moment("to", func(q *Query) *int64 { return &q.ToUS }),
	},
}

// ParseQuery returns the Query of a URL's parameters, or a *Failure that says which one is wrong, and what would be right.
func ParseQuery(what string, given url.Values) (Query, error) {
	q := Query{What: what, N: defaultRows, AtUS: Latest, By: "child", Steps: defaultSteps}
	list, ok := parameters[what]
	if !ok {
		return q, NoData(fmt.Sprintf("there is no api/%.100s: api/page says what there is", what))
	}
	var names []string
	for _, p := range list {
		names = append(names, p.name)
		if v := given.Get(p.name); v != "" && !p.take(&q, v) {
			return q, wrong("api/%s: %s=%.100q: use %s", what, p.name, v, p.right)
		}
	}
	for name := range given {
		if !slices.Contains(names, name) {
			return q, wrong("api/%s: it has no parameter %.100q: leave it out", what, name)
		}
	}
	if what == GetBetween && (given.Get("from") == "" || given.Get("to") == "" || q.FromUS > q.ToUS) {
		return q, wrong("api/%s: from=%.100q and to=%.100q: use both, from not after to", what, given.Get("from"), given.Get("to"))
	}
	return q, nil
}

func wrong(format string, values ...any) error {
	return &Failure{http.StatusBadRequest, fmt.Sprintf(format, values...)}
}
