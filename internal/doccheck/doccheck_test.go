// Package doccheck tests the Markdown files of the repository. Links must lead
// somewhere, Go code must compile, and make targets must exist.
package doccheck

import (
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/interlock-go/interlock"

// importable has the packages that fragments of Go use.
var importable = map[string]string{
	"interlock": module, "lockedfile": module + "/lockedfile", "pidfile": module + "/pidfile", "locktest": module + "/locktest",
	"context": "context", "errors": "errors", "exec": "os/exec", "filepath": "path/filepath", "fmt": "fmt", "fs": "io/fs",
	"io": "io", "log": "log", "os": "os", "slog": "log/slog", "sync": "sync", "testing": "testing", "time": "time",
}

var root = os.DirFS("../..")

// A document is a Markdown file.
type document struct {
	path   string
	prose  []string // all lines, those of code blocks empty
	blocks []block
}

// A block is fenced code.
type block struct {
	lang, text string
	line       int // of the opening fence
}

var fence = regexp.MustCompile("^\\s*(```+)\\s*(\\S*)")

// documents reads all Markdown files.
func documents(t *testing.T) (docs []document) {
	for _, name := range files(t) {
		if path.Ext(name) != ".md" {
			continue
		}
		d := document{path: name}
		inside := false
		for i, line := range strings.Split(read(t, name), "\n") {
			if m := fence.FindStringSubmatch(line); m != nil {
				if inside = !inside; inside {
					d.blocks = append(d.blocks, block{lang: m[2], line: i + 1})
				}
				line = ""
			} else if inside {
				d.blocks[len(d.blocks)-1].text += line + "\n"
				line = ""
			}
			d.prose = append(d.prose, line)
		}
		docs = append(docs, d)
	}
	return docs
}

// commands returns what may be a command: code in the prose, and the lines of
// blocks that are not Go.
func (d document) commands() (commands []string) {
	for _, span := range codeSpan.FindAllString(strings.Join(d.prose, "\n"), -1) {
		commands = append(commands, strings.Trim(span, "`"))
	}
	for _, b := range d.blocks {
		if b.lang != "go" {
			commands = append(commands, strings.Split(b.text, "\n")...)
		}
	}
	return commands
}

// files returns all files, except those in hidden directories other than .ci
// and .github.
func files(t *testing.T) (names []string) {
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && name[0] == '.' && !slices.Contains([]string{".", ".ci", ".github"}, name) {
			return fs.SkipDir
		}
		names = append(names, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func read(t *testing.T, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

var (
	codeSpan = regexp.MustCompile("`[^`\n]*`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)|^\[[^]]+\]:\s*(\S+)|(?:href|src)="([^"]+)"`)
	url      = regexp.MustCompile(`^[a-z]+:`)
	heading  = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	linkText = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	dropped  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

func TestLinks(t *testing.T) {
	docs := documents(t)
	anchors := make(map[string][]string) // those that GitHub gives the headings
	for _, d := range docs {
		for _, m := range heading.FindAllStringSubmatch(strings.Join(d.prose, "\n"), -1) {
			s := dropped.ReplaceAllString(linkText.ReplaceAllString(m[1], "$1"), "")
			anchors[d.path] = append(anchors[d.path], strings.ReplaceAll(strings.ToLower(s), " ", "-"))
		}
	}
	for _, d := range docs {
		for i, line := range d.prose {
			for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, ""), -1) {
				target := m[1] + m[2] + m[3]
				file, anchor, hasAnchor := strings.Cut(target, "#")
				if url.MatchString(target) {
					continue
				} else if file == "" {
					file = d.path
				} else {
					file = path.Join(path.Dir(d.path), file)
				}
				if _, err := fs.Stat(root, file); err != nil {
					t.Errorf("%s:%d: %v", d.path, i+1, err)
				} else if hasAnchor && !slices.Contains(anchors[file], anchor) {
					t.Errorf("%s:%d: %s has no heading %s", d.path, i+1, file, anchor)
				}
			}
		}
	}
}

var (
	makeCommand = regexp.MustCompile(`^(?:\w+=\S* |sudo )*make((?: [\w-]+(?:=\S*)?)*)`)
	makeName    = regexp.MustCompile(`(?m)^([\w-]+)(?::| [:?]?=)`)
)

func TestMakeTargets(t *testing.T) {
	known := make(map[string]bool) // targets and variables
	for _, m := range makeName.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		known[m[1]] = true
	}
	for _, d := range documents(t) {
		for _, c := range d.commands() {
			if m := makeCommand.FindStringSubmatch(c); m != nil {
				for _, arg := range strings.Fields(m[1]) {
					if name, _, _ := strings.Cut(arg, "="); !known[name] {
						t.Errorf("%s: %q: the Makefile has no %s", d.path, c, name)
					}
				}
			}
		}
	}
}

var (
	qualifier = regexp.MustCompile(`\b(\w+)\.[A-Z]`)
	// Fragments may use names that they do not define. No code here can import
	// packages of other modules, which a whole file may do.
	fragmentErrors = regexp.MustCompile(`^undefined: \w+$|return|^declared and not used|imported and not used`)
	fileErrors     = regexp.MustCompile(`^could not import \w+\.`)
)

// TestGoCode type-checks the blocks of Go. A block is a whole file or a
// fragment: declarations or statements, to which the test adds imports.
func TestGoCode(t *testing.T) {
	fset := token.NewFileSet()
	parsed := make(map[*ast.File]*regexp.Regexp) // the errors to ignore
	list := []string{"list", "-e", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}"}
	for _, d := range documents(t) {
		for _, b := range d.blocks {
			if b.lang != "go" {
				continue
			}
			prefix, suffix := strings.Repeat("\n", b.line), "" // so that errors have the line
			ignored := fileErrors
			if !strings.HasPrefix(b.text, "package ") {
				ignored = fragmentErrors
				prefix += "package p;"
				for _, m := range qualifier.FindAllStringSubmatch(b.text, -1) {
					if p := importable[m[1]]; p != "" && !strings.Contains(prefix, p+`"`) {
						prefix += fmt.Sprintf("import %q;", p)
					}
				}
				if _, err := parser.ParseFile(fset, "", prefix+b.text, 0); err != nil {
					prefix, suffix = prefix+"func _() {", "}"
				}
			}
			file, err := parser.ParseFile(fset, d.path, prefix+b.text+suffix, 0)
			if err != nil {
				t.Error(err)
				continue
			}
			parsed[file] = ignored
			for _, spec := range file.Imports {
				list = append(list, strings.Trim(spec.Path.Value, `"`))
			}
		}
	}
	out, err := exec.Command("go", list...).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err) // such as under Wine
	} else if err != nil {
		t.Fatal(err)
	}
	exports := make(map[string]string) // files of compiled packages
	for _, line := range strings.Fields(string(out)) {
		name, file, _ := strings.Cut(line, "=")
		exports[name] = file
	}
	for file, ignored := range parsed {
		config := types.Config{
			Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
				if exports[path] == "" && strings.HasPrefix(path, module) {
					t.Errorf("%s: cannot import %s", fset.File(file.Package).Name(), path)
				}
				return os.Open(exports[path])
			}),
			Error: func(err error) {
				if !ignored.MatchString(err.(types.Error).Msg) {
					t.Error(err)
				}
			},
		}
		config.Check("p", fset, []*ast.File{file}, nil)
	}
}
