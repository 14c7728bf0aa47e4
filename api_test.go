package alloctrace_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write api/v1.txt anew")

// TestAPI holds what all packages export against api/v1.txt, so that no name comes, goes or
// changes unseen. To change one, run go test -run TestAPI -update . and commit that file too.
func TestAPI(t *testing.T) {
	needGo(t)
	if _, err := os.Stat("go.work"); err != nil {
		if requireAll {
			t.Fatal("the listing is of all modules, which are in a clone alone: run the test there")
		}
		t.Skip("the listing is of all modules, which are in a clone alone: run the test there")
	}
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Dir", "work").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Name, Dir string }
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		path := strings.Split(p.ImportPath, "/") // the examples are programs, and what they are made of
		if p.Name != "main" && !slices.Contains(path, "internal") && !slices.Contains(path, "examples") {
			for _, line := range exports(t, p.Name, p.Dir) {
				got = append(got, strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, "github.com/alloctrace/"), "alloctrace/")+": "+line)
			}
		}
	}
	slices.Sort(got)
	got = slices.Compact(got)
	const file = "api/v1.txt"
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("not in %s: %s", file, line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("in %s and not in the code: %s", file, line)
		}
	}
}

// exports returns a line for each name that the package exports on any platform.
func exports(t *testing.T, name, dir string) (lines []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name.Name != name {
			continue
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				lines = append(lines, exportedFunc(d)...)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.ValueSpec:
						for _, name := range s.Names {
							if name.IsExported() {
								lines = append(lines, strings.TrimSpace(fmt.Sprintf("%v %s %s", d.Tok, name, source(s.Type))))
							}
						}
					case *ast.TypeSpec:
						if s.Name.IsExported() {
							lines = append(lines, exportedType(s)...)
						}
					}
				}
			}
		}
	}
	return lines
}

func exportedFunc(d *ast.FuncDecl) []string {
	if !d.Name.IsExported() {
		return nil
	}
	if d.Recv == nil {
		return []string{"func " + d.Name.Name + typeParams(d.Type.TypeParams) + signature(d.Type)}
	}
	receiver := source(d.Recv.List[0].Type)
	if !ast.IsExported(strings.TrimPrefix(receiver, "*")) {
		return nil
	}
	return []string{"method (" + receiver + ") " + d.Name.Name + signature(d.Type)}
}

func exportedType(s *ast.TypeSpec) []string {
	line := "type " + s.Name.Name + typeParams(s.TypeParams)
	if s.Assign.IsValid() {
		return []string{line + " = " + source(s.Type)}
	}
	var members []string
	kind := source(s.Type)
	switch of := s.Type.(type) {
	case *ast.StructType:
		kind = "struct"
		for _, f := range of.Fields.List {
			for _, name := range f.Names {
				if name.IsExported() {
					members = append(members, name.Name+" "+source(f.Type))
				}
			}
			if embedded := source(f.Type); f.Names == nil && ast.IsExported(embedded[strings.LastIndexAny(embedded, "*.")+1:]) {
				members = append(members, "embedded "+embedded)
			}
		}
	case *ast.InterfaceType:
		kind = "interface"
		for _, f := range of.Methods.List {
			if of, ok := f.Type.(*ast.FuncType); ok && !f.Names[0].IsExported() {
				members = append(members, "unexported methods")
			} else if ok {
				members = append(members, f.Names[0].Name+signature(of))
			} else {
				members = append(members, "embedded "+source(f.Type))
			}
		}
	}
	lines := []string{line + " " + kind}
	for _, m := range members {
		lines = append(lines, line+" "+kind+", "+m)
	}
	return lines
}

// signature returns the types of parameters and results, without their names.
func signature(f *ast.FuncType) string {
	results := types(f.Results)
	if len(results) == 1 {
		return "(" + strings.Join(types(f.Params), ", ") + ") " + results[0]
	} else if len(results) > 1 {
		return "(" + strings.Join(types(f.Params), ", ") + ") (" + strings.Join(results, ", ") + ")"
	}
	return "(" + strings.Join(types(f.Params), ", ") + ")"
}

func types(fields *ast.FieldList) (list []string) {
	if fields == nil {
		return nil
	}
	for _, f := range fields.List {
		list = append(list, slices.Repeat([]string{source(f.Type)}, max(1, len(f.Names)))...)
	}
	return list
}

func typeParams(fields *ast.FieldList) string {
	if fields == nil {
		return ""
	}
	var list []string
	for _, f := range fields.List {
		for _, name := range f.Names {
			list = append(list, name.Name+" "+source(f.Type))
		}
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// source returns a type as it is written, "" if there is none.
func source(e ast.Expr) string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	if err := printer.Fprint(&b, token.NewFileSet(), e); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
