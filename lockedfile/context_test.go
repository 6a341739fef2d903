package lockedfile

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func TestCanceledCallChangesNothing(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, path string) error{
		"Read":      func(ctx context.Context, path string) error { _, err := Read(ctx, path); return err },
		"Write":     func(ctx context.Context, path string) error { return Write(ctx, path, []byte("new"), 0o600) },
		"Append":    func(ctx context.Context, path string) error { return Append(ctx, path, []byte("new"), 0o600) },
		"Transform": func(ctx context.Context, path string) error { return Transform(ctx, path, 0o600, addOne) },
		"TransformJSON": func(ctx context.Context, path string) error {
			return TransformJSON(ctx, path, 0o600, func(n *int) error { *n++; return nil })
		},
		"OpenFile": func(ctx context.Context, path string) error {
			_, err := OpenFile(ctx, path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(bg)
			path := newFile(t, "1")
			f := lockFile(t, path)
			done := start(func() error { return call(ctx, path) })
			wantBlocked(t, done)
			cancel()
			if err := finish(t, done); err != ctx.Err() {
				t.Error(err)
			}
			must(t, f.Close())
			if err := call(ctx, path); err != ctx.Err() {
				t.Error(err)
			}
			wantFile(t, path, "1")
			wantUnlocked(t, path)
			if err := call(ctx, path+"2"); err != ctx.Err() {
				t.Error(err)
			}
			wantNoFile(t, path+"2")
		})
	}
}

func TestTransformCanceledInFunction(t *testing.T) {
	ctx, cancel := context.WithCancel(bg)
	path := newFile(t, "1")
	err := Transform(ctx, path, 0, func(old []byte) ([]byte, error) { cancel(); return addOne(old) })
	if err != ctx.Err() {
		t.Error(err)
	}
	wantFile(t, path, "1")
}

// An oddContext has an error that panics when it is compared.
type oddContext struct{ context.Context }

type oddError []error

func (oddError) Error() string { return "odd" }

func (c oddContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return oddError{err}
	}
	return nil
}

func TestIncomparableContextError(t *testing.T) {
	path := newFile(t, "data")
	f := lockFile(t, path)
	ctx, cancel := context.WithTimeout(bg, time.Millisecond)
	defer cancel()
	for range 2 { // The second time, the context is done from the start.
		if _, err := Read(oddContext{ctx}, path); !errors.As(err, new(oddError)) {
			t.Error(err)
		}
	}
	must(t, f.Close())
}
