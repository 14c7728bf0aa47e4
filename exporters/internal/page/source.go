package page

import (
	"context"
	"net/http"
)

// A Source has what a page shows. It may be used by several goroutines at once.
type Source interface {
	// Answer returns the answer to a query: a pointer to what the contract says. An error is a *Failure where one is to be shown with
	// another status than 500.
	Answer(ctx context.Context, q Query) (any, error)
}

// A Ticker is a Source that changes.
type Ticker interface {
	Source

	// Tick returns a Tick that is whole.
	Tick() *Tick

	// Watched is called with true when somebody begins to look, and with false when nobody does any more: then it is to drop what it keeps
	// for those who look.
	Watched(bool)
}

// Serve returns the handler that serves the page of a Source. Package exporters/debugpage sets it.
var Serve func(s Source, a Access) http.Handler

// Access says who may look.
type Access struct {
	Hosts  []string // names by which the page is reached, beside those of loopback
	Remote bool     // the handler is behind the user's own authentication
}

// The answers of a Source.
const (
	GetPage         = "page"
	GetTables       = "tables"
	GetSnapshot     = "snapshot"
	GetBlocks       = "blocks"
	GetMap          = "map"
	GetEvents       = "events"
	GetTimeline     = "timeline"
	GetBetween      = "between"
	GetLifetimes    = "lifetimes"
	GetLeaks        = "leaks"
	PostMark        = "mark"
	PostUnreachable = "unreachable"
)

// A Failure is an error with the status of its answer.
type Failure struct {
	Status int
	Text   string
}

func (f *Failure) Error() string { return f.Text }

// NoData returns the Failure of an answer for which there is no data, and why.
func NoData(why string) error { return &Failure{http.StatusNotFound, why} }
