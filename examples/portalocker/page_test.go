package portalocker_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every row of the page has an example, but that of what there is not; and every example a row.
func TestThePageAndItsExamples(t *testing.T) {
	page, err := os.ReadFile("../../docs/portalocker.md")
	if err != nil {
		t.Fatal(err)
	}
	var code string
	for _, name := range []string{"example_test.go", "../../example_test.go"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code += string(data)
	}
	example := regexp.MustCompile("`(Example\\w*)`")
	_, table, found := strings.Cut(string(page), "|---|---|---|\n")
	if !found {
		t.Fatal("no table")
	}
	for row := range strings.Lines(table) {
		if !strings.HasPrefix(row, "|") {
			break
		}
		if !example.MatchString(row) && !strings.HasPrefix(row, "| `RedisLock` |") {
			t.Error("no example in the row " + row)
		}
	}
	for _, name := range example.FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(code, "func "+name[1]+"()") {
			t.Error("no example: " + name[1])
		}
	}
	for _, name := range regexp.MustCompile(`func (Example_\w+)`).FindAllStringSubmatch(code, -1) {
		if !strings.Contains(string(page), "`"+name[1]+"`") {
			t.Error("no row: " + name[1])
		}
	}
}
