// Package migration checks the pages about moving from another library, and
// the examples that belong to them.
package migration

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	exampleInPage = regexp.MustCompile("`(Example\\w*)`")
	exampleInCode = regexp.MustCompile(`func (Example\w+)\(\)`)
)

// Check compares a Markdown page with the Go file that has its examples. The
// first table of the page with three columns names an example in each row.
// Check reports a row without an example, a name without a function, and a
// function that the page does not name. Rows that begin with one of the
// exceptions need no example.
func Check(t *testing.T, page, code string, exceptions ...string) {
	t.Helper()
	text, functions := read(t, page), read(t, code)

	_, table, found := strings.Cut(text, "|---|---|---|\n")
	if !found {
		t.Fatalf("%s has no table with three columns", page)
	}
	for row := range strings.Lines(table) {
		if !strings.HasPrefix(row, "|") {
			break
		}
		excepted := slices.ContainsFunc(exceptions, func(prefix string) bool {
			return strings.HasPrefix(row, prefix)
		})
		if !excepted && !exampleInPage.MatchString(row) {
			t.Errorf("no example in the row %s", row)
		}
	}

	inPage, inCode := names(exampleInPage, text), names(exampleInCode, functions)
	for _, name := range inPage {
		if !slices.Contains(inCode, name) {
			t.Errorf("%s names %s, which is not in %s", page, name, code)
		}
	}
	for _, name := range inCode {
		if !slices.Contains(inPage, name) {
			t.Errorf("%s does not name %s", page, name)
		}
	}
}

func names(example *regexp.Regexp, text string) []string {
	var names []string
	for _, match := range example.FindAllStringSubmatch(text, -1) {
		names = append(names, match[1])
	}
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
