package interlock_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/interlock-go/interlock"
)

// All processes of the machine share four units. A big job acquires three.
func ExampleFileSemaphore() {
	gpus := interlock.Must(interlock.NewFileSemaphore(filepath.Join(tempDir(), "gpu"), 4))
	defer gpus.Close()

	if err := gpus.Acquire(context.Background(), 3); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("two more:", gpus.TryAcquire(2))
	fmt.Println("one more:", gpus.TryAcquire(1))
	gpus.Release(4)
	// Output:
	// two more: false
	// one more: true
}

// While a semaphore is open, it has one size.
func ExampleNewFileSemaphore() {
	name := filepath.Join(tempDir(), "gpu")
	gpus := interlock.Must(interlock.NewFileSemaphore(name, 4))
	_, err := interlock.NewFileSemaphore(name, 8)
	fmt.Println("another size:", err == nil)
	gpus.Close()

	gpus = interlock.Must(interlock.NewFileSemaphore(name, 8))
	fmt.Println("after Close:", gpus.Size())
	gpus.Close()
	// Output:
	// another size: false
	// after Close: 8
}

// Two functions run at a time, no matter how many processes do this at once.
func ExampleFileSemaphore_Group() {
	builds := interlock.Must(interlock.NewFileSemaphore(filepath.Join(tempDir(), "builds"), 2))
	defer builds.Close()

	g, ctx := builds.Group(context.Background())
	for _, target := range []string{"a", "b", "c", "bad", "d"} {
		g.Go(func() error {
			if target == "bad" {
				return errors.New("cannot build " + target)
			}
			return ctx.Err()
		})
	}
	fmt.Println(g.Wait())
	// Output: cannot build bad
}

func ExampleGroup() {
	sem := interlock.Must(interlock.NewFileSemaphore(filepath.Join(tempDir(), "jobs"), 1))
	defer sem.Close()

	g, _ := sem.Group(context.Background())
	release := make(chan struct{})
	g.Go(func() error {
		<-release
		return nil
	})
	fmt.Println("while the unit is in use:", g.TryGo(func() error { return nil }))
	close(release)
	fmt.Println("error:", g.Wait())
	// Output:
	// while the unit is in use: false
	// error: <nil>
}
