package lockedfile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/lockedfile"
)

var ctx = context.Background()

// newPath returns the path of a file that does not exist.
func newPath() string {
	return filepath.Join(interlock.Must(os.MkdirTemp("", "lockedfile-example-*")), "file")
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func ExampleRead() {
	name := newPath()
	_, err := lockedfile.Read(ctx, name)
	fmt.Println(errors.Is(err, os.ErrNotExist))

	check(lockedfile.Write(ctx, name, []byte("contents"), 0o644))
	data, err := lockedfile.Read(ctx, name)
	fmt.Println(string(data), err)
	// Output:
	// true
	// contents <nil>
}

func ExampleWrite() {
	name := newPath()
	check(lockedfile.Write(ctx, name, []byte("old"), 0o644))
	check(lockedfile.Write(ctx, name, []byte("new"), 0o644)) // The mode stays.
	data, err := os.ReadFile(name)
	fmt.Println(string(data), err)
	// Output: new <nil>
}

func ExampleTryWrite() {
	name := newPath()
	// Usually, another process has locked the file.
	f := interlock.Must(lockedfile.OpenFile(ctx, name, os.O_RDWR|os.O_CREATE, 0o644))
	defer f.Close()

	err := lockedfile.TryWrite(name, []byte("new"), 0o644)
	fmt.Println(errors.Is(err, interlock.ErrLocked))
	// Output: true
}

func ExampleAppend() {
	name := newPath()
	check(lockedfile.Append(ctx, name, []byte("one\n"), 0o644))
	check(lockedfile.Append(ctx, name, []byte("two\n"), 0o644))
	data := interlock.Must(lockedfile.Read(ctx, name))
	fmt.Print(string(data))
	// Output:
	// one
	// two
}

func ExampleTransform() {
	name := newPath()
	for range 3 {
		check(lockedfile.Transform(ctx, name, 0o644, func(old []byte) ([]byte, error) {
			n, _ := strconv.Atoi(string(old))
			return strconv.AppendInt(nil, int64(n+1), 10), nil
		}))
	}
	fmt.Println(string(interlock.Must(lockedfile.Read(ctx, name))))
	// Output: 3
}

func ExampleTransformJSON() {
	type config struct {
		Hosts []string `json:"hosts"`
	}
	name := newPath()
	for _, host := range []string{"a", "b"} {
		check(lockedfile.TransformJSON(ctx, name, 0o644, func(c *config) error {
			c.Hosts = append(c.Hosts, host)
			return nil
		}))
	}
	fmt.Print(string(interlock.Must(lockedfile.Read(ctx, name))))
	// Output:
	// {
	// 	"hosts": [
	// 		"a",
	// 		"b"
	// 	]
	// }
}

func ExampleOpenFile() {
	name := newPath()
	f, err := lockedfile.OpenFile(ctx, name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprint(f, "written under the lock")
	fmt.Println(f.Close())
	fmt.Println(string(interlock.Must(lockedfile.Read(ctx, name))))
	// Output:
	// <nil>
	// written under the lock
}

func ExampleFile() {
	name := newPath()
	check(lockedfile.Write(ctx, name, []byte("key=value\n"), 0o644))
	// A shared lock: other readers do not wait.
	f, err := lockedfile.OpenFile(ctx, name, os.O_RDONLY, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()

	var line string // A File has all methods of an os.File.
	fmt.Fscanln(f, &line)
	fmt.Println(line)
	// Output: key=value
}

func ExampleFile_Close() {
	name := newPath()
	f := interlock.Must(lockedfile.OpenFile(ctx, name, os.O_WRONLY|os.O_CREATE, 0o644))
	fmt.Println(errors.Is(lockedfile.TryWrite(name, nil, 0), interlock.ErrLocked))

	check(f.Close())
	fmt.Println(lockedfile.TryWrite(name, nil, 0))
	// Output:
	// true
	// <nil>
}

func ExampleWithoutSync() {
	cache := newPath()
	check(lockedfile.Write(lockedfile.WithoutSync(ctx), cache, []byte("can be made again"), 0o644))
	fmt.Println(string(interlock.Must(lockedfile.Read(ctx, cache))))
	// Output: can be made again
}
