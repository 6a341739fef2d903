package locktest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// A counter is the path of a file with a number in it, which nothing but a lock keeps whole.
type counter string

func newCounter[L lock](t *scene[L]) counter {
	t.Helper()
	c := counter(filepath.Join(filepath.Dir(t.name), "counter"))
	t.must(c.set(0))
	return c
}

func (c counter) get() (int, error) {
	data, err := os.ReadFile(string(c))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(data)) // which fails if somebody is writing
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

// wants fails if the counter does not say so.
func (t *scene[L]) wants(c counter, want int) {
	t.Helper()
	if n, err := c.get(); err != nil || n != want {
		t.Errorf("%d of %d left, %v", n, want, err)
	}
}

// hammer makes a call n times on each of some goroutines, until one fails.
func hammer(goroutines, n int, call func(i int) error) error {
	var all []<-chan error
	for i := range goroutines {
		all = append(all, start(func() error {
			for range n {
				if err := call(i); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	var errs []error
	for _, done := range all {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}
