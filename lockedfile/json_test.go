package lockedfile

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// wantJSONError fails unless TransformJSON refuses the contents with an error
// that names the file and contains place, and leaves them alone.
func wantJSONError[T any](t *testing.T, contents, place string) {
	t.Helper()
	path := newFile(t, contents)
	err := TransformJSON(bg, path, 0, func(*T) error { t.Error("called"); return nil })
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != path || !strings.Contains(err.Error(), place) {
		t.Errorf("%s: got %v, want %s", contents, err, place)
	}
	if place == "" && strings.Contains(err.Error(), "byte ") {
		t.Errorf("%s: got a wrong place: %v", contents, err)
	}
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	if !errors.As(err, &syntax) && !errors.As(err, &mismatch) {
		t.Errorf("%s: got %v, want an error of package json", contents, err)
	}
	wantFile(t, path, contents)
}

func TestJSONErrorSaysWhere(t *testing.T) {
	type config struct{ N int }
	for contents, place := range map[string]string{
		`{"N": oops}`:      "byte 7:",
		`{"N": 1} trailer`: "byte 10:",
		`{"N": 1}{"N": 2}`: "byte 9:",
		`{"N": "one"}`:     "byte 11:",
		`{"N": 1`:          "byte 7:",
		" ":                "byte 1:",
	} {
		wantJSONError[config](t, contents, place)
	}
}

// nested decodes itself by json.Unmarshal, which counts bytes from its start.
type nested struct{ N int }

func (n *nested) UnmarshalJSON(data []byte) error {
	if string(data) == `"own"` {
		return json.Unmarshal([]byte("{"), n)
	}
	type plain nested
	return json.Unmarshal(data, (*plain)(n))
}

func TestJSONErrorInNestedDecoder(t *testing.T) {
	type config struct {
		Pad string
		In  nested
	}
	for contents, place := range map[string]string{
		`{"Pad": "some", "In": {"N": "one"}}`: "",
		`{"Pad": "some", "In": "own"}`:        "",
		`{"Pad": 1, "In": {"N": 1}}`:          "byte 9:",
		`{"Pad": "some", "In": {"N": }}`:      "byte 29:",
	} {
		wantJSONError[config](t, contents, place)
	}
}
