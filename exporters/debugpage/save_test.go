package debugpage

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
)

// savedPage returns a saved page, and its answers.
func savedPage(t *testing.T, r *http.Response, err error) (doc string, answers map[string]json.RawMessage) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v: %.300s", r.Status, err, body)
	}
	data := regexp.MustCompile(`(?s)<script type="application/json" id="saved">(.*?)</script>`).FindSubmatch(body)
	if data == nil {
		t.Fatalf("there are no answers in %.2000s", body)
	}
	if err := json.Unmarshal(data[1], &answers); err != nil {
		t.Fatal(err)
	}
	return string(body), answers
}

// TestSave: a saved page has the answers, opens without a server, and lets nothing run but its own program.
func TestSave(t *testing.T) {
	_, _, url := planted(t, Options{Unreachable: true, Title: `</script><script>alert("evil")//`}, 3)
	r, err := http.Get(url + "save")
	doc, answers := savedPage(t, r, err)
	for _, name := range []string{"page", "tables", "snapshot", "blocks", "map", "events", "lifetimes", "leaks"} {
		if len(answers["api/"+name]) < 100 {
			t.Errorf("the answer of api/%s is %s", name, answers["api/"+name])
		}
	}
	p := decode[page.Page](t, bytes.NewReader(answers["api/page"]))
	tables := decode[page.Tables](t, bytes.NewReader(answers["api/tables"]))
	blocks := decode[page.Blocks](t, bytes.NewReader(answers["api/blocks"]))
	if p.Mode != page.Saved || p.Of != page.Live || p.Title != `</script><script>alert("evil")//` || answers["api/timeline?by=child"] != nil ||
		p.Tabs["timeline"] != noTimeline || p.Tabs["unreachable"] == "" {
		t.Errorf("the page is %+v", p)
	}
	for _, site := range blocks.Site {
		if site >= len(tables.Sites.Owner) {
			t.Fatalf("a block is of site %d, and there are %d", site, len(tables.Sites.Owner))
		}
	}
	if disposition := r.Header.Get("Content-Disposition"); !regexp.MustCompile(`^attachment; filename="__script__script_alert__evil____-\d{8}-\d{6}\.html"$`).MatchString(disposition) {
		t.Errorf("the file is %s", disposition)
	}
	if n := strings.Count(doc, "<script"); n != 2 || strings.Count(doc, "</script") != 2 || strings.Contains(doc, `src="`) || strings.Contains(doc, `href="app`) || strings.Contains(doc, "alert(\"evil\")") {
		t.Errorf("the page has %d scripts, or names a file", n)
	}
	policy := regexp.MustCompile(`<meta http-equiv="Content-Security-Policy" content="([^"]*)">`).FindStringSubmatch(doc)
	script := doc[strings.LastIndex(doc, "<script>")+len("<script>") : strings.LastIndex(doc, "</script>")]
	style := doc[strings.Index(doc, "<style>")+len("<style>") : strings.Index(doc, "</style>")]
	want := "default-src 'none'; script-src '" + sha(script) + "'; style-src '" + sha(style) + "'; img-src data:; base-uri 'none'; form-action 'none'"
	if policy == nil || policy[1] != want || strings.Index(doc, policy[0]) > strings.Index(doc, "<style>") {
		t.Errorf("the policy is %q, want %s", policy, want)
	}
}

func sha(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// TestSaveTimeline: what the browser has seen comes back in the page that it saves, and nothing else does.
func TestSaveTimeline(t *testing.T) {
	server := httptest.NewServer(Handler(Options{}, alloctest.New(t)))
	defer server.Close()
	post := func(body string) (*http.Response, error) {
		return http.Post(server.URL+"/save", "application/json", strings.NewReader(body))
	}
	line := page.Timeline{By: "child", BeginUS: 1, StepUS: 2, Total: []int64{3}, Groups: []page.TimelineGroup{{Site: -1, Name: "<a>", Values: []int64{3}}}}
	sent, err := json.Marshal(map[string]page.Timeline{"api/timeline?by=child": line})
	if err != nil {
		t.Fatal(err)
	}
	r, err := post(string(sent))
	_, answers := savedPage(t, r, err)
	if got := decode[page.Timeline](t, bytes.NewReader(answers["api/timeline?by=child"])); got.Groups[0].Name != "<a>" || got.Total[0] != 3 || got.StepUS != 2 {
		t.Errorf("%+v comes back of %+v", got, line)
	}
	r, err = post("{}") // of a browser that has seen nothing yet
	_, answers = savedPage(t, r, err)
	if p := decode[page.Page](t, bytes.NewReader(answers["api/page"])); p.Tabs["timeline"] != noTimeline || p.Tabs["overview"] != "" {
		t.Errorf("without timelines, the tabs are %q", p.Tabs)
	}
	for _, wrong := range []string{
		"", "[]", "null x", `{"api/page":{}}`, `{"api/timeline?by=site":{"by":"child"}}`, `{"api/timeline?by=child":null}`, `{"api/timeline?by=child":{"by":"child","html":"<b>"}}`,
		`{"api/timeline?by=child":{"by":"child","total":[` + strings.Repeat("1,", maxSent/2) + `1]}}`,
	} {
		r, err := post(wrong)
		if err != nil {
			t.Fatal(err)
		}
		if e := decode[page.Error](t, r.Body); r.Body.Close() != nil || r.StatusCode != http.StatusBadRequest || !strings.HasPrefix(e.Error, "save: ") {
			t.Errorf("%.50q: %s: %s", wrong, r.Status, e.Error)
		}
	}
}

// TestEscapeTag: what HTML would take for the end of the program is written otherwise.
func TestEscapeTag(t *testing.T) {
	for is, want := range map[string]string{
		`"</script>"`: `"<\/script>"`, `"</STYLE >"`: `"<\/STYLE >"`, `"<!-- a"`: `"<\!-- a"`, `a<b`: `a<b`, `"</div>"`: `"</div>"`,
	} {
		if got := endTag.ReplaceAllStringFunc(is, escapeTag); got != want {
			t.Errorf("%s becomes %s, want %s", is, got, want)
		}
	}
}

// TestFiles: the files of the page are served with what a browser needs to keep them.
func TestFiles(t *testing.T) {
	server := httptest.NewServer(Handler(Options{}, alloctest.New(t)))
	defer server.Close()
	for name, kind := range fileTypes {
		for _, packed := range []bool{true, false} {
			request := func(tag string) *http.Response {
				r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/"+strings.TrimSuffix(name, "index.html"), nil)
				if err != nil {
					t.Fatal(err)
				}
				if tag != "" {
					r.Header.Set("If-None-Match", tag)
				}
				if !packed {
					r.Header.Set("Accept-Encoding", "gzip;q=0, identity")
				}
				answer, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				return answer
			}
			first := request("")
			body, err := io.ReadAll(first.Body)
			if first.Body.Close(); err != nil || first.StatusCode != http.StatusOK || !bytes.Equal(body, files()[name].data) || first.Header.Get("Content-Type") != kind || first.Uncompressed != packed {
				t.Errorf("%s: %s %v: %d bytes, %v", name, first.Status, first.Header, len(body), err)
			}
			second := request(first.Header.Get("Etag"))
			if second.Body.Close(); second.StatusCode != http.StatusNotModified || second.Header.Get("Content-Security-Policy") == "" {
				t.Errorf("%s: the second time %s", name, second.Status)
			}
			if third := request(`"other"`); third.Body.Close() != nil || third.StatusCode != http.StatusOK {
				t.Errorf("%s: of another tag %s", name, third.Status)
			}
		}
	}
}

func TestTakesGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "deflate, GZIP;q=0.5": true, "gzip;q=0": false, "gzip; q=0.0": false, "gzip;q=0.001": true, "br": false, "x-gzip": false, "identity, gzip": true,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Encoding", header)
		if got := takesGzip(r); got != want {
			t.Errorf("%q: %t", header, got)
		}
	}
}
