package alloctrace_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages are the documents that are held against the code.
func pages(t *testing.T) []string {
	t.Helper()
	needClone(t)
	guides, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"README.md", "CONTRIBUTING.md", "PERFORMANCE.md"}, guides...)
}

// A code is a block of a page between two lines of three backticks.
type code struct {
	page   string
	line   int    // of its first line
	lang   string // go, sh, text
	before string // the paragraph before it
	text   string
}

func codes(t *testing.T, page string) (list []code) {
	t.Helper()
	var before string
	ended := false // before is a whole paragraph
	var open *code
	for i, line := range strings.Split(readFile(t, page), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &code{page: page, line: i + 2, lang: fence, before: before}
		case isFence:
			list, open, before = append(list, *open), nil, ""
		case open != nil:
			open.text += line + "\n"
		case line == "":
			ended = true
		case ended:
			before, ended = line, false
		default:
			before += " " + line
		}
	}
	return list
}

// isFile reports whether c is a whole file, which has the name that stands before it.
func (c code) isFile() bool { return c.lang == "go" && strings.Contains("\n"+c.text, "\npackage ") }

func (c code) fileName() string {
	if m := regexp.MustCompile("`(\\w+\\.go)`").FindStringSubmatch(c.before); m != nil {
		return m[1]
	}
	return "main.go"
}

// given are the parameters that a fragment has from the program around it: a comment before it says
// <!-- given: ctx context.Context, mem *alloctrace.Proxy -->.
func (c code) given() string {
	m := regexp.MustCompile(`^<!-- given: (.*) -->$`).FindStringSubmatch(c.before)
	if m == nil {
		return ""
	}
	return m[1]
}

// A packaged is the Go code of a page, as the packages that the page has: its files, and its fragments.
type packaged struct {
	name   string            // of the page, without .md
	files  map[string]string // by name
	tests  bool              // some of the files are tests
	binary string            // the name of the package of the files, of the page if that is main
	result string

	fragments map[string]string // by name, each made a file
}

// packagedOf makes packages of a page. A fragment is statements or declarations. It need not import what the page imports
// elsewhere.
func packagedOf(t *testing.T, page string) packaged {
	t.Helper()
	p := packaged{name: strings.ToLower(strings.TrimSuffix(filepath.Base(page), ".md")), files: make(map[string]string), fragments: make(map[string]string)}
	imported := make(map[string]string)
	list := slices.DeleteFunc(codes(t, page), func(c code) bool { return c.lang != "go" })
	for _, c := range list {
		maps.Copy(imported, c.imports(t))
	}
	for _, c := range list {
		imports, body := c.needs(t, imported)
		if c.isFile() {
			p.files[c.fileName()] += c.text
			if p.binary = regexp.MustCompile(`(?m)^package (\w+)`).FindStringSubmatch(c.text)[1]; p.binary == "main" {
				p.binary = p.name
			}
			p.tests = p.tests || strings.HasSuffix(c.fileName(), "_test.go")
			continue
		}
		text := fmt.Sprintf("package p\n%s//line %s:%d\n%s", imports, page, c.line+strings.Count(c.text, "\n")-strings.Count(body, "\n"), body)
		if _, err := parser.ParseFile(token.NewFileSet(), "", text, 0); err != nil {
			text = fmt.Sprintf("package p\n%sfunc _(%s) error {\n//line %s:%d\n%s\nreturn nil\n}\n",
				imports, c.given(), page, c.line+strings.Count(c.text, "\n")-strings.Count(body, "\n"), body)
		}
		p.fragments[fmt.Sprintf("line%d.go", c.line)] = text
	}
	return p
}

// cut cuts c into its import declaration and the rest.
func (c code) cut() (imports, body string) {
	if at := regexp.MustCompile(`(?m)^import (?s:\(\n.*?\n\)|".*?")\n`).FindStringIndex(c.text); at != nil {
		return c.text[at[0]:at[1]], c.text[at[1]:]
	}
	return "", c.text
}

// imports returns what c imports, by the names that packages have there.
func (c code) imports(t *testing.T) map[string]string {
	t.Helper()
	list, _ := c.cut()
	f, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+list, parser.ImportsOnly)
	if err != nil {
		t.Fatalf("%s:%d: %v", c.page, c.line, err)
	}
	imported := make(map[string]string)
	for _, i := range f.Imports {
		if i.Name != nil {
			imported[i.Name.Name] = i.Name.Name + " " + i.Path.Value
		} else {
			imported[filepath.Base(strings.Trim(i.Path.Value, `"`))] = i.Path.Value
		}
	}
	return imported
}

// needs returns the import declarations that a fragment needs, of those imported on its page, and the fragment without its own.
func (c code) needs(t *testing.T, imported map[string]string) (imports, body string) {
	t.Helper()
	_, body = c.cut()
	if c.isFile() {
		return "", body
	}
	f, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+body, parser.SkipObjectResolution)
	if err != nil {
		f, err = parser.ParseFile(token.NewFileSet(), "", "package p\nfunc _("+c.given()+") {\n"+body+"\n}", parser.SkipObjectResolution)
	}
	if err != nil {
		t.Errorf("%s:%d: %v", c.page, c.line, err)
		return "", body
	}
	used := make(map[string]bool)
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && imported[x.Name] != "" {
				used[x.Name] = true
			}
		}
		return true
	})
	for _, name := range slices.Sorted(maps.Keys(used)) {
		imports += "import " + imported[name] + "\n"
	}
	return imports, body
}

// TestCode compiles all Go code of the README and the guides. It runs the tests and programs among it, whose output has every
// line of the page's first text, but for times, addresses and ids of spans.
func TestCode(t *testing.T) {
	needGo(t)
	dir := t.TempDir()
	overlay := make(map[string]string) // of files that are not there, in module examples
	place := func(folder string, files map[string]string) string {
		folder = "examples/docs/" + folder
		for name, text := range files {
			path := filepath.Join(dir, strings.ReplaceAll(folder, "/", "-")+"-"+name)
			if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
			at, err := filepath.Abs(filepath.Join(folder, name))
			if err != nil {
				t.Fatal(err)
			}
			overlay[at] = path
		}
		return "./" + folder
	}
	var compile, tests, programs []string
	results := make(map[string]packaged) // by name
	for _, page := range pages(t) {
		p := packagedOf(t, page)
		if len(p.fragments) > 0 {
			compile = append(compile, place(p.name+"/fragments", p.fragments))
		}
		if len(p.files) > 0 {
			folder := place(p.name+"/"+p.binary, p.files)
			p.result = result(t, page)
			if results[p.name] = p; p.tests {
				tests = append(tests, folder)
			} else {
				programs = append(programs, folder)
			}
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), data, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		append([]string{"build"}, compile...),
		append([]string{"build", "-o", dir + "/"}, programs...),
		append([]string{"test", "-c", "-vet=off", "-o", dir + "/"}, tests...),
	} {
		if strings.HasPrefix(args[len(args)-1], "./") {
			goCommand(t, dir, args...)
		}
	}
	for name, p := range results {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.run(t, dir)
		})
	}
}

// goCommand runs the go command for this machine, with the overlay.
func goCommand(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", slices.Insert(args, 1, "-overlay="+filepath.Join(dir, "overlay.json"))...)
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOOS=", "GOARCH=", "CGO_ENABLED=0", "GOWORK=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// result is the first text of a page: what comes out of what it says to do.
func result(t *testing.T, page string) string {
	for _, c := range codes(t, page) {
		if c.lang == "text" {
			return c.text
		}
	}
	return ""
}

// run runs the test or the program.
func (p packaged) run(t *testing.T, dir string) {
	t.Helper()
	var args []string
	path := filepath.Join(dir, p.binary)
	if p.tests {
		path, args = path+".test", []string{"-test.v", "-test.short"}
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if failed := strings.Contains(p.result, "--- FAIL"); (err != nil) != failed {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, text := range p.files { // the output of an example is in a comment, and no longer in that of the test
		out = append(out, strings.ReplaceAll(text, "\t// ", "")...)
	}
	varies := regexp.MustCompile(`0x[0-9a-f]+|\d+(\.\d+)?(ns|µs|ms|s)\b|"\d{4}-\d\d-\d\dT[^"]+"|"([0-9a-f]{16}){1,2}"`)
	got := varies.ReplaceAllString(string(out), "#")
	for line := range strings.Lines(varies.ReplaceAllString(p.result, "#")) {
		if !strings.Contains(got, line) {
			t.Errorf("the page has the line\n%sand this is not in\n%s", line, out)
		}
	}
}

// TestLength: a page is read at one go.
func TestLength(t *testing.T) {
	for _, page := range pages(t) {
		most := 140
		switch filepath.ToSlash(page) {
		case "README.md":
			most = 150
		case "PERFORMANCE.md", "docs/fields.md":
			continue // tables
		}
		if lines := strings.Count(readFile(t, page), "\n"); lines > most {
			t.Errorf("%s has %d lines, want %d at most", page, lines, most)
		}
	}
}

// TestLinks: what a page links to within the repository is there, headings too.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`)
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(readFile(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			to := page
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if m[2] != "" && !slices.Contains(anchors(readFile(t, to)), m[2]) {
				t.Errorf("%s links to #%s, and %s has no such heading", page, m[2], to)
			}
		}
	}
}

// anchors are those that GitHub makes of the headings of a page.
func anchors(text string) (list []string) {
	punctuation := regexp.MustCompile(`[^\p{L}\p{N}\s_-]`)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		list = append(list, strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return list
}

// TestNames: what a page calls by a name of the repository is there: files and folders, targets of make, and what packages export.
func TestNames(t *testing.T) {
	makefile, api := readFile(t, "Makefile"), readFile(t, "api/v1.txt")
	missing := func(path string) bool {
		_, err := os.Stat(strings.TrimSuffix(path, "/..."))
		return err != nil
	}
	inCommand := regexp.MustCompile(`(?:^|\s)(?:\./|github\.com/alloctrace/alloctrace/)([\w./-]*)|(?:^|\s)(\.ci/[\w./-]+)`)
	inText := regexp.MustCompile("`((?:alloctest|blockalloc|counter|tracer|hooks|exporters|examples|internal|docs|api|\\.ci)/[\\w./-]+)`")
	target := regexp.MustCompile("(?m)(?:^|`)make (\\w+)")
	exported := regexp.MustCompile("`(?:\\w+/)*(\\w+)\\.([A-Z]\\w*)")
	for _, page := range pages(t) {
		text := readFile(t, page)
		for _, c := range codes(t, page) {
			if c.lang != "sh" {
				continue
			}
			for _, m := range inCommand.FindAllStringSubmatch(c.text, -1) {
				if path := m[1] + m[2]; path != "" && path != "..." && missing(path) {
					t.Errorf("%s has a command with %s, which is not there", page, path)
				}
			}
		}
		for _, m := range inText.FindAllStringSubmatch(text, -1) {
			if missing(m[1]) {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s says make %s, and Makefile has no such target", page, m[1])
			}
		}
		for _, m := range exported.FindAllStringSubmatch(text, -1) {
			pkg, name := regexp.QuoteMeta(m[1]), regexp.QuoteMeta(m[2])
			ours := regexp.MustCompile(`(?m)^(\w+/)*` + pkg + `: `)
			known := regexp.MustCompile(`(?m)^(\w+/)*` + pkg + `: (const|func|type|var) ` + name + `\b|\(\*?` + pkg + `\) ` + name + `\b|type ` + pkg + ` struct, .*\b` + name + `\b`)
			if ours.MatchString(api) && !known.MatchString(api) {
				t.Errorf("%s names %s.%s, which no package exports", page, m[1], m[2])
			}
		}
	}
}

// TestAnchors: headings become anchors as GitHub makes them.
func TestAnchors(t *testing.T) {
	got := anchors("# Where things go\n\n## Why does `go tool pprof` not show it?\n")
	if want := []string{"where-things-go", "why-does-go-tool-pprof-not-show-it"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestCodeIsFound: a page whose code does not compile, or has another result, is found.
func TestCodeIsFound(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	text := "`one.go`:\n\n```go\npackage one\n\nimport (\n\t\"context\"\n)\n```\n\n<!-- given: n int -->\n```go\nimport (\n\t\"fmt\"\n)\n\nfmt.Println(n)\n```\n\n```go\nfunc two() { fmt.Println(context.Background()) }\n```\n"
	if err := os.WriteFile(page, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	p := packagedOf(t, page)
	if !strings.HasPrefix(p.files["one.go"], "package one\n") || len(p.fragments) != 2 {
		t.Fatalf("%+v", p)
	}
	for name, want := range map[string]string{
		"line13.go": "package p\nimport \"fmt\"\nfunc _(n int) error {\n//line " + page + ":16\n\nfmt.Println(n)\n\nreturn nil\n}\n",
		"line21.go": "package p\nimport \"context\"\nimport \"fmt\"\n//line " + page + ":21\nfunc two() { fmt.Println(context.Background()) }\n",
	} {
		if got := p.fragments[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
