package debugpage

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/internal/text"
)

func init() { page.Serve = func(s page.Source, a page.Access) http.Handler { return newServer(s, a) } }

// A server serves the page of a Source.
type server struct {
	source  page.Source
	access  page.Access
	answers answers
	hub     *hub // nil if the Source does not change
}

func newServer(s page.Source, a page.Access) *server {
	srv := &server{source: s, access: a}
	ticker, ok := s.(page.Ticker)
	if !ok {
		srv.answers.forever = true
		return srv
	}
	srv.hub = &hub{source: ticker, watched: func(is bool) {
		srv.answers.watched(is)
		ticker.Watched(is)
	}}
	return srv
}

// answerDeadline is how long an answer may take to make and to send, whatever the server's WriteTimeout is.
const answerDeadline = 2 * time.Minute

// ServeHTTP serves what the end of a URL's path says, so that it can be mounted anywhere.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	if status, why := refuse(s.access, r); why != "" {
		fail(w, status, why)
		return
	}
	folder, name := path.Split(r.URL.Path)
	methods := []string{http.MethodGet, http.MethodHead}
	switch name {
	case "save":
		methods = append(methods, http.MethodPost)
	case page.PostMark, page.PostUnreachable:
		methods = []string{http.MethodPost}
	}
	if !slices.Contains(methods, r.Method) {
		want := strings.Join(methods, ", ")
		w.Header().Set("Allow", want)
		fail(w, http.StatusMethodNotAllowed, "method "+text.Line(r.Method, maxShown)+": use "+want)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerDeadline)) // else the server's holds
	switch api := strings.HasSuffix(folder, "/api/"); {
	case api && name == "stream" && s.hub != nil:
		s.hub.serve(w, r)
	case api && name == "stream":
		fail(w, http.StatusNotFound, "this page does not change: it is of a file")
	case api && name != "":
		s.serveAnswer(w, r, name)
	case name == "save":
		s.serveSaved(w, r)
	case name == "" && !api:
		serveFile(w, r, "index.html")
	case files()[name] != nil:
		serveFile(w, r, name)
	default:
		fail(w, http.StatusNotFound, "there is no "+text.Line(name, maxShown)+" here: open the page by a URL that ends in /, and register its handler by a pattern that does")
	}
}

func (s *server) serveAnswer(w http.ResponseWriter, r *http.Request, what string) {
	q, err := page.ParseQuery(what, r.URL.Query())
	var packed []byte
	if err == nil {
		packed, err = s.answer(r.Context(), q)
	}
	var failure *page.Failure
	switch {
	case r.Context().Err() != nil: // nobody waits for it any more
	case errors.As(err, &failure):
		fail(w, failure.Status, failure.Text)
	case err != nil:
		fail(w, http.StatusInternalServerError, err.Error())
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		writePacked(w, r, packed)
	}
}

// answer returns the answer to a query, as gzip'ed JSON.
func (s *server) answer(ctx context.Context, q page.Query) ([]byte, error) {
	switch q.What {
	case page.GetTables, page.PostMark, page.PostUnreachable: // of each asker, or an action
		v, err := s.source.Answer(ctx, q)
		if err != nil {
			return nil, err
		}
		if q.What == page.PostMark {
			s.answers.forget(page.GetLeaks)
		}
		return compressed(v)
	}
	a, err := s.answers.get(ctx, q, func(ctx context.Context) (any, error) { return s.source.Answer(ctx, q) })
	if err != nil {
		return nil, err
	}
	return a.body, nil
}

// fail answers with an error, which a person may read too.
func fail(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(page.Error{Error: text.Text(why)}) // the client has gone
}
