package gofrsflock_test

import (
	"testing"

	"github.com/interlock-go/interlock/examples/internal/migration"
)

func TestMain(m *testing.M) { migration.Main(m) }

func TestPageMatchesExamples(t *testing.T) {
	migration.Check(t, "../../docs/gofrs-flock.md", "example_test.go")
}
