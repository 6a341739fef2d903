package lockedfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// TransformJSON is like [Transform] for a file that contains one JSON value. It
// decodes the value, calls f to change it, and encodes it again, indented by
// tabs. If the file is empty or does not exist, f gets the zero T.
//
// Fields of the file that T does not have are lost.
//
// If the contents are not JSON, do not fit T, or are more than one value,
// TransformJSON changes nothing. The error is an [*fs.PathError] that wraps the
// one of [json.Unmarshal] and says at which byte it is. It does not name the
// byte if the error is in a part that an UnmarshalJSON method decodes.
func TransformJSON[T any](ctx context.Context, name string, perm fs.FileMode, f func(v *T) error) error {
	return Transform(ctx, name, perm, func(old []byte) ([]byte, error) {
		var v T
		if len(old) > 0 {
			if err := unmarshal(old, &v); err != nil {
				return nil, pathError("decode", name, err)
			}
		}
		if err := f(&v); err != nil {
			return nil, err
		}
		data, err := json.MarshalIndent(&v, "", "\t")
		if err != nil {
			return nil, pathError("encode", name, err)
		}
		return append(data, '\n'), nil
	})
}

// unmarshal is json.Unmarshal, with an error that says where it is, if
// possible.
func unmarshal[T any](data []byte, v *T) error {
	err := json.Unmarshal(data, v)
	if err == nil {
		return nil
	}
	// An UnmarshalJSON method that calls json.Unmarshal counts from the
	// start of its part. An offset is one of data only if it moves when
	// data does.
	moved := json.Unmarshal(append([]byte(" "), data...), new(T))
	if offset := offsetOf(err); offset > 0 && offsetOf(moved) == offset+1 {
		return fmt.Errorf("byte %d: %w", offset, err)
	}
	return err
}

// offsetOf returns the offset in an error of json.Unmarshal, or 0.
func offsetOf(err error) int64 {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return syntax.Offset
	case errors.As(err, &mismatch):
		return mismatch.Offset
	}
	return 0
}
