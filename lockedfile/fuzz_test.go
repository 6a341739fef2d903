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

// FuzzTransformJSON: whatever a file contains, either it is JSON, and a change of nothing leaves its
// meaning, or the error names the file, and the contents are what they were.
func FuzzTransformJSON(f *testing.F) {
	for _, contents := range []string{"", "{}", `{"a":1}`, `{"a":{"b":[1,2,{"c":null}]}}`, "null", "[]", "1 2", "{", `"\ud800"`, "\xff", "{}x", " \n{}\n ", "1e999", `{"a":1,"a":2}`} {
		f.Add([]byte(contents))
	}
	f.Fuzz(func(t *testing.T, contents []byte) {
		path := filepath.Join(t.TempDir(), "data")
		must(t, os.WriteFile(path, contents, 0o600))
		var was any
		valid := len(contents) == 0 || json.Unmarshal(contents, &was) == nil
		err := TransformJSON(bg, path, 0o600, func(v *any) error { return nil })
		after, readErr := os.ReadFile(path)
		must(t, readErr)
		if !valid {
			var pathErr *fs.PathError
			if !errors.As(err, &pathErr) || pathErr.Path != path || !bytes.Equal(after, contents) {
				t.Fatalf("%v, and %q became %q", err, contents, after)
			}
			return
		}
		must(t, err)
		var is any
		if err := json.Unmarshal(after, &is); err != nil {
			t.Fatalf("%q became %q: %v", contents, after, err)
		}
		wantJSON, _ := json.Marshal(was)
		gotJSON, _ := json.Marshal(is)
		if !bytes.Equal(wantJSON, gotJSON) {
			t.Fatalf("%q became %q", contents, after)
		}
	})
}

// FuzzTransform: what f returns is what is in the file afterwards, whatever was there before.
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
				t.Errorf("it was %q, and is read as %q", before, old)
			}
			return after, nil
		}))
		must(t, Append(WithoutSync(bg), path, before, 0o600))
		got, err := Read(bg, path)
		must(t, err)
		if want := append(bytes.Clone(after), before...); !bytes.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		alone(t, path)
	})
}
