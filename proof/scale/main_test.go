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

	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/proc"
)

func TestMain(m *testing.M) {
	proc.Run(processes)
	os.Exit(m.Run())
}

// TestSmallWorkloads measures small workloads. Every member must have turns,
// the counters must be right, and the report must be complete.
func TestSmallWorkloads(t *testing.T) {
	length := time.Second
	if longtest.Enabled() {
		length = 3 * time.Second
	}
	var rows []row
	for i, c := range []workload{
		{kind: "processes on one lock", processes: 5, goroutines: 1, locks: 1},
		{kind: "processes on one lock", processes: 40, goroutines: 1, locks: 1},
		{kind: "goroutines on locks", processes: 2, goroutines: 50, locks: 10},
		{kind: "processes on a semaphore", processes: 20, goroutines: 1, units: 4},
	} {
		r, err := measure(c, filepath.Join(t.TempDir(), "workload"), length, time.Second)
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
