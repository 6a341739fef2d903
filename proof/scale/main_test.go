//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
)

func TestMain(m *testing.M) {
	proc.Run(processes)
	os.Exit(m.Run())
}

// Small crowds: everybody has turns, the counters are right, and a report comes of it.
func TestCrowds(t *testing.T) {
	length := 3 * time.Second
	if testing.Short() {
		length = time.Second
	}
	var rows []row
	for i, c := range []crowd{
		{what: "processes on a lock", processes: 5, goroutines: 1, locks: 1},
		{what: "processes on a lock", processes: 40, goroutines: 1, locks: 1},
		{what: "goroutines on locks", processes: 2, goroutines: 50, locks: 10},
		{what: "processes on a semaphore", processes: 20, goroutines: 1, units: 4},
	} {
		r, err := measure(c, filepath.Join(t.TempDir(), "crowd"), length, time.Second)
		if err != nil {
			t.Fatal(i, err)
		}
		t.Logf("%+v", r)
		rows = append(rows, r)
	}
	var b bytes.Buffer
	table(&b, rows)
	if n := strings.Count(b.String(), "\n"); n != 2+len(rows) {
		t.Error(b.String())
	}
	svg := filepath.Join(t.TempDir(), "scale.svg")
	if err := plotTo(rows, svg); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(svg)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := xml.NewDecoder(f); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
