package interlock_test

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/interlock-go/interlock"
)

// The owner can lock again. Other owners must wait until it has unlocked as
// many times.
func ExampleFileRMutex() {
	mu := interlock.Must(interlock.NewFileRMutex(filepath.Join(tempDir(), "account.lock")))
	defer mu.Close()

	me, other := interlock.NewOwner(), interlock.NewOwner()
	mu.Lock(me)
	mu.Lock(me)
	fmt.Println(mu.TryLock(other))
	mu.Unlock(me)
	mu.Unlock(me)
	fmt.Println(mu.TryLock(other))
	mu.Unlock(other)
	// Output:
	// false
	// true
}

// All FileRMutexes of a process for one path are the same lock.
func ExampleNewFileRMutex() {
	path := filepath.Join(tempDir(), "account.lock")
	one := interlock.Must(interlock.NewFileRMutex(path))
	two := interlock.Must(interlock.NewFileRMutex(path))
	defer one.Close()
	defer two.Close()

	o := interlock.NewOwner()
	one.Lock(o)
	two.Lock(o)
	fmt.Println("locked", two.Depth(o), "times")
	two.Unlock(o)
	one.Unlock(o)
	// Output: locked 2 times
}

// Locked functions that call each other pass the owner on by the context.
func ExampleFileRMutex_Do() {
	mu := interlock.Must(interlock.NewFileRMutex(filepath.Join(tempDir(), "account.lock")))
	defer mu.Close()

	withdraw := func(ctx context.Context) error {
		return mu.Do(ctx, func(ctx context.Context) error {
			o, _ := interlock.OwnerFromContext(ctx)
			fmt.Println("withdraw: locked", mu.Depth(o), "times")
			return nil
		})
	}
	transfer := func(ctx context.Context) error {
		return mu.Do(ctx, func(ctx context.Context) error {
			fmt.Println("transfer")
			return withdraw(ctx) // does not deadlock
		})
	}
	fmt.Println(transfer(context.Background()))
	// Output:
	// transfer
	// withdraw: locked 2 times
	// <nil>
}

func ExampleOwner() {
	a, b := interlock.NewOwner(), interlock.NewOwner()
	fmt.Println(a == b, a == interlock.Owner{})
	// Output: false false
}

// A server can make an owner for each request.
func ExampleContextWithOwner() {
	mu := interlock.Must(interlock.NewFileRMutex(filepath.Join(tempDir(), "account.lock")))
	defer mu.Close()

	o := interlock.NewOwner()
	ctx := interlock.ContextWithOwner(context.Background(), o)
	mu.Lock(o)
	defer mu.Unlock(o)
	fmt.Println(mu.Do(ctx, func(context.Context) error {
		fmt.Println("locked", mu.Depth(o), "times")
		return nil
	}))
	// Output:
	// locked 2 times
	// <nil>
}

func ExampleOwnerFromContext() {
	ctx := context.Background()
	_, ok := interlock.OwnerFromContext(ctx)
	fmt.Println(ok)
	o := interlock.NewOwner()
	got, ok := interlock.OwnerFromContext(interlock.ContextWithOwner(ctx, o))
	fmt.Println(ok, got == o)
	// Output:
	// false
	// true true
}
