package debugpage

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/internal/text"
)

// maxSent is how many bytes of timelines a browser may send for a saved page.
const maxSent = 16 << 20

// saved are the queries whose answers a saved page has, by URL. Tables come last: then they have all that the others name.
var saved = []struct {
	url string
	by  string
}{
	{"page", ""}, {"snapshot", ""}, {"blocks", ""}, {"map", ""}, {"events", ""}, {"lifetimes", ""}, {"leaks", ""},
	{"timeline", "child"}, {"timeline", "site"}, {"timeline", "region"}, {"tables", ""},
}

// What a saved page does not have.
const (
	noTimeline = "This page was saved without a timeline, which the browser makes: use the button of a page that was open for a while."
	noSearch   = "This page was saved: the program that could be asked is not there."
)

// timelineURL is that of a Timeline in a saved page.
func timelineURL(by string) string { return "api/timeline?by=" + by }

// serveSaved serves the page as one file, with the timelines that the request may have.
func (s *server) serveSaved(w http.ResponseWriter, r *http.Request) {
	sent, err := sentTimelines(w, r)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	answers, title, err := s.savedAnswers(r.Context(), sent)
	var doc []byte
	if err == nil {
		doc, err = selfContained(answers, title)
	}
	if r.Context().Err() != nil {
		return // nobody waits for it any more
	}
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Disposition", `attachment; filename="`+fileName(title, time.Now())+`"`)
	_, _ = w.Write(doc) // the client has gone
}

// sentTimelines returns the Timelines of a request's body: only the browser has those of a page that was live.
func sentTimelines(w http.ResponseWriter, r *http.Request) (map[string]*page.Timeline, error) {
	if r.Method != http.MethodPost {
		return nil, nil
	}
	var sent map[string]*page.Timeline
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSent))
	d.DisallowUnknownFields()
	err := d.Decode(&sent)
	if err == nil && d.More() {
		err = errors.New("there is more after the object")
	}
	if err != nil {
		return nil, fmt.Errorf("save: the body: %w: send an object of timelines by their URLs, of %d MiB at most", err, maxSent>>20)
	}
	for url, t := range sent {
		if t == nil || url != timelineURL(t.By) {
			return nil, fmt.Errorf("save: %q in the body: use api/timeline?by= and what the timeline is by", text.Line(url, maxShown))
		}
	}
	return sent, nil
}

// savedAnswers returns what a saved page has, and its title.
func (s *server) savedAnswers(ctx context.Context, sent map[string]*page.Timeline) (map[string]json.RawMessage, string, error) {
	all := make(map[string]json.RawMessage)
	var of page.Page
	for _, a := range saved {
		q, err := page.ParseQuery(a.url, nil)
		if err != nil {
			return nil, "", err
		}
		url := "api/" + a.url
		if a.by != "" {
			url, q.By = timelineURL(a.by), a.by
		}
		if t := sent[url]; t != nil {
			if all[url], err = json.Marshal(t); err != nil {
				return nil, "", err
			}
			continue
		}
		packed, err := s.answer(ctx, q)
		var failure *page.Failure
		switch {
		case errors.As(err, &failure) && failure.Status == http.StatusNotFound: // the page says why
			continue
		case err != nil:
			return nil, "", err
		}
		if all[url], err = unpacked(packed); err != nil {
			return nil, "", err
		}
	}
	if err := json.Unmarshal(all["api/"+page.GetPage], &of); err != nil {
		return nil, "", err
	}
	of.Of, of.Mode = of.Mode, page.Saved
	switch has := all[timelineURL("child")] != nil; {
	case has:
		of.Tabs["timeline"] = ""
	case of.Tabs["timeline"] == "":
		of.Tabs["timeline"] = noTimeline
	}
	if of.Tabs["unreachable"] == "" {
		of.Tabs["unreachable"] = noSearch
	}
	var err error
	all["api/"+page.GetPage], err = json.Marshal(of)
	return all, of.Title, err
}

func unpacked(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(r)
	return b.Bytes(), err
}

var (
	styleLink  = regexp.MustCompile(`<link[^>]*\shref="app\.css"[^>]*>`)
	scriptLink = regexp.MustCompile(`<script[^>]*\ssrc="app\.js"[^>]*></script>`)
	charset    = regexp.MustCompile(`(?i)<meta charset="utf-8">`)
	pageTitle  = regexp.MustCompile(`<title>[^<]*</title>`)
	endTag     = regexp.MustCompile(`(?i)</(script|style)|<!--`)
)

// selfContained returns the page with its style, its program and answers in it, as a document that opens from a file. Its policy lets nothing run
// but this program, and nothing be loaded.
func selfContained(answers map[string]json.RawMessage, title string) ([]byte, error) {
	data, err := json.Marshal(answers) // which escapes what would end the element
	if err != nil {
		return nil, err
	}
	all := files()
	style, script := string(all["app.css"].data), endTag.ReplaceAllStringFunc(string(all["app.js"].data), escapeTag)
	if endTag.MatchString(style) {
		return nil, errors.New("debugpage: app.css has what would end its element: change that of web/src")
	}
	doc := string(all["index.html"].data)
	policy := fmt.Sprintf(`default-src 'none'; script-src '%s'; style-src '%s'; img-src data:; base-uri 'none'; form-action 'none'`, hashOf(script), hashOf(style))
	for _, c := range []struct {
		at   *regexp.Regexp
		text string
	}{
		{charset, `<meta charset="utf-8">` + "\n" + `<meta http-equiv="Content-Security-Policy" content="` + policy + `">`},
		{pageTitle, "<title>" + html.EscapeString(title) + "</title>"},
		{styleLink, "<style>" + style + "</style>"},
		{scriptLink, `<script type="application/json" id="saved">` + string(data) + "</script>\n<script>" + script + "</script>"},
	} {
		if len(c.at.FindAllString(doc, 2)) != 1 {
			return nil, fmt.Errorf("debugpage: index.html has not one %v: change that of web/src", c.at)
		}
		doc = c.at.ReplaceAllLiteralString(doc, c.text)
	}
	return []byte(doc), nil
}

// escapeTag writes what HTML takes for a tag in a way that means the same in the strings and regular expressions of a program.
func escapeTag(tag string) string {
	if tag == "<!--" {
		return `<\!--`
	}
	return `<\/` + tag[2:]
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// fileName returns the name of a saved page, of letters that all systems allow.
func fileName(title string, at time.Time) string {
	name := strings.Map(func(r rune) rune {
		if r < 128 && (r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			return r
		}
		return '_'
	}, title)
	return name[:min(len(name), 60)] + "-" + at.UTC().Format("20060102-150405") + ".html"
}
