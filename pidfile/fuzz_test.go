package pidfile

import (
	"bytes"
	"os"
	"testing"
)

// FuzzContents uses a PID file with any contents that no process has locked.
// Read does not report a running process. Create takes the file over or leaves
// it as it is.
func FuzzContents(f *testing.F) {
	for _, contents := range []string{
		"", "1", "1\n", "0\n", "-1\n", "4194304\n", "99999999999999999999\n", "1\n2\n",
		" 1 \n", "x", "\x00\x00\x00", "1\x00\n", "#!/bin/sh\n",
	} {
		f.Add([]byte(contents))
	}
	f.Fuzz(func(t *testing.T, contents []byte) {
		path := newPath(t)
		must(t, os.WriteFile(path, contents, 0o600))
		if _, running, err := Read(path); running {
			t.Fatal("Read reports a running process:", err)
		}
		p, err := Create(path)
		if err != nil {
			if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, contents) {
				t.Fatalf("%q became %q: %v", contents, data, err)
			}
			return
		}
		wantRead(t, path, os.Getpid(), true)
		must(t, p.Close())
		if _, err := os.Lstat(path); err == nil {
			t.Fatal("not removed")
		}
	})
}
