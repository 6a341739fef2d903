package lockedfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// FuzzTransformJSON changes nothing in a file with any contents. If they are
// JSON, they keep their meaning. If not, the error names the file, which stays
// as it is.
func FuzzTransformJSON(f *testing.F) {
	for _, contents := range []string{
		"", "{}", `{"a":1}`, `{"a":{"b":[1,2,{"c":null}]}}`, "null", "[]", "1 2", "{",
		`"\ud800"`, "\xff", "{}x", " \n{}\n ", "1e999", `{"a":1,"a":2}`,
	} {
		f.Add([]byte(contents))
	}
	f.Fuzz(func(t *testing.T, contents []byte) {
		path := filepath.Join(t.TempDir(), "data")
		must(t, os.WriteFile(path, contents, 0o600))
		var before any
		valid := len(contents) == 0 || json.Unmarshal(contents, &before) == nil
		err := TransformJSON(bg, path, 0o600, func(v *any) error { return nil })
		data, readErr := os.ReadFile(path)
		must(t, readErr)
		if !valid {
			var pathErr *fs.PathError
			if !errors.As(err, &pathErr) || pathErr.Path != path || !bytes.Equal(data, contents) {
				t.Fatalf("%v, and %q became %q", err, contents, data)
			}
			return
		}
		must(t, err)
		var after any
		if err := json.Unmarshal(data, &after); err != nil {
			t.Fatalf("%q became %q: %v", contents, data, err)
		}
		wantJSON, _ := json.Marshal(before)
		gotJSON, _ := json.Marshal(after)
		if !bytes.Equal(wantJSON, gotJSON) {
			t.Fatalf("%q became %q", contents, data)
		}
	})
}

// FuzzTransform replaces any contents with any others and appends to them.
func FuzzTransform(f *testing.F) {
	f.Add([]byte(nil), []byte("x"))
	f.Add([]byte("longer than what follows"), []byte("short"))
	f.Add([]byte("same"), []byte("same"))
	f.Add([]byte{0}, []byte{})
	f.Fuzz(func(t *testing.T, before, after []byte) {
		path := filepath.Join(t.TempDir(), "data")
		must(t, os.WriteFile(path, before, 0o640))
		must(t, Transform(WithoutSync(bg), path, 0o600, func(old []byte) ([]byte, error) {
			if !bytes.Equal(old, before) {
				t.Errorf("%q is read as %q", before, old)
			}
			return after, nil
		}))
		must(t, Append(WithoutSync(bg), path, before, 0o600))
		got, err := Read(bg, path)
		must(t, err)
		if want := append(bytes.Clone(after), before...); !bytes.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		wantNoTemp(t, path)
	})
}
