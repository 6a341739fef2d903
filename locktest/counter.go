package locktest

import (
	"os"
	"path/filepath"
	"strconv"
)

// A counter is the path of a file that contains a number. Only the lock under
// test protects it from lost updates.
type counter string

func newCounter[L lock](t *fixture[L]) counter {
	t.Helper()
	c := counter(filepath.Join(filepath.Dir(t.name), "counter"))
	t.must(c.set(0))
	return c
}

// get fails if another goroutine or process is writing.
func (c counter) get() (int, error) {
	data, err := os.ReadFile(string(c))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(data))
}

func (c counter) set(n int) error {
	return os.WriteFile(string(c), []byte(strconv.Itoa(n)), 0o600)
}

func (c counter) add() error {
	n, err := c.get()
	if err != nil {
		return err
	}
	return c.set(n + 1)
}

// wantCounter fails unless the counter is want.
func (t *fixture[L]) wantCounter(c counter, want int) {
	t.Helper()
	if n, err := c.get(); err != nil || n != want {
		t.Errorf("the counter is %d, want %d: updates were lost (error: %v)", n, want, err)
	}
}
