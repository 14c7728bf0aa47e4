// Package fields holds the names that leave the process to lists, for tests: fields of lines and of JSON, attributes and
// labels are API. docs/fields.md has the lists as tables, which the test in folder root compares.
package fields

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Compare fails t unless file has the lines, sorted and each once. A line is a name and its type. With the flag -update, which
// the test has to define, it writes the file anew.
func Compare(t *testing.T, file string, lines []string) {
	t.Helper()
	slices.Sort(lines)
	got := strings.Join(slices.Compact(lines), "\n") + "\n"
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the fields are\n%s%s has\n%sthey are API; if the change is right, run the test with -update and bring docs/fields.md up to date",
			got, file, want)
	}
}

// JSON returns a line for each field of v in JSON, for example "classes[].size number".
func JSON(t *testing.T, v any) []string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return Object(t, text)
}

// Object is JSON of what is JSON already.
func Object(t *testing.T, text []byte) []string {
	t.Helper()
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatalf("%v: %.300s", err, text)
	}
	return lines("", value)
}

func lines(path string, value any) (list []string) {
	kind := ""
	switch v := value.(type) {
	case map[string]any:
		kind = "object"
		for key, field := range v {
			list = append(list, lines(strings.TrimPrefix(path+"."+key, "."), field)...)
		}
	case []any:
		kind = "array"
		for _, element := range v {
			if _, ok := element.(map[string]any); ok {
				list = append(list, lines(path+"[]", element)...)
			}
		}
	case string:
		kind = "string"
	case float64:
		kind = "number"
	case bool:
		kind = "boolean"
	default:
		kind = fmt.Sprintf("%T", v)
	}
	if path != "" && !strings.HasSuffix(path, "[]") {
		list = append(list, path+" "+kind)
	}
	return list
}
