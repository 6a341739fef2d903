//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// table writes rows as a table in Markdown.
func table(w io.Writer, rows []row) {
	fmt.Fprintln(w, "| | a turn takes | turns: least, most | all waiting: threads | descriptors | private memory | CPU | wake-ups | then a turn takes |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, r := range rows {
		fmt.Fprintf(w, "| %d %s | %s | %d, %d | %.1f | %.1f | %.1f kB | %.2f %% | %.1f /s | %s |\n", r.members(), r.what,
			micros(r.perTurn), r.least, r.most, r.threads, r.descriptors, r.memory, 100*r.idle, r.wakeups, micros(r.perTurnWaiting))
	}
}

func micros(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d)/1e3) }

// page is what is written with the table.
func page(table string) []byte {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	var b bytes.Buffer
	fmt.Fprintf(&b, `# How it grows

Measured by `+"`go run ./scale -o ../docs`"+` in the directory proof, with %s, Linux %s, on %d cores that are shared with others: compare
the lines, not with other machines.

%s
![the same as a plot](scale.svg)

- **A turn takes** the time of the whole, through all turns that anybody has had in it, while all contend without a pause. In a turn, the
  lock is taken, a number in a file that it guards is read and written, and the lock is given back. That number is right at the end: no two have had the lock at once.
- **Turns** are those of the member of the crowd that had the least of them, and of the one that had the most.
- **All waiting**: one process more has all that there is, and all others wait. Threads and descriptors are of one process, memory is of one
  waiter (for processes, all of the process's own, with what contending has left there; for goroutines, what there is more than before), CPU (100 %% is one core) and wake-ups are of all
  together.
- **Then a turn takes**: from when that process gives up what it has until all that waited have had their turn, by their number.
`, runtime.Version(), strings.TrimSpace(string(kernel)), runtime.NumCPU(), table)
	return b.Bytes()
}

// plots are how rows of one kind grow.
func plots(rows []row) (all []*plot.Plot, err error) {
	for _, what := range []struct {
		title string
		of    func(r row) float64
	}{
		{"a turn takes (µs)", func(r row) float64 { return float64(r.perTurn) / 1e3 }},
		{"memory of a waiter (kB)", func(r row) float64 { return r.memory }},
		{"most turns of a member, by the least", func(r row) float64 { return float64(r.most) / float64(max(r.least, 1)) }},
	} {
		p := plot.New()
		p.Title.Text = what.title
		p.X.Label.Text = "waiters"
		p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
		p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
		p.Legend.Top, p.Legend.Left = true, true
		p.Add(plotter.NewGrid())
		for i, group := range byWhat(rows) {
			points := make(plotter.XYs, len(group))
			for j, r := range group {
				points[j].X, points[j].Y = float64(r.members()), what.of(r)
			}
			line, dots, err := plotter.NewLinePoints(points)
			if err != nil {
				return nil, err
			}
			line.Color, dots.Color, dots.Shape = plotutil.Color(i), plotutil.Color(i), plotutil.Shape(i)
			p.Add(line, dots)
			if len(all) == 0 {
				name, _, _ := strings.Cut(group[0].what, ",")
				p.Legend.Add(name, line, dots)
			}
		}
		p.Y.Min, p.Y.Max = decades(p.Y.Min, p.Y.Max)
		if len(all) == 0 {
			p.Y.Max *= 10 // room for the legend
		}
		all = append(all, p)
	}
	return all, nil
}

// decades are the powers of ten around an interval.
func decades(low, high float64) (float64, float64) {
	from, to := 1., 1.
	for from > low {
		from /= 10
	}
	for from*10 <= low {
		from *= 10
	}
	for to < high {
		to *= 10
	}
	return from, max(to, 10*from)
}

// plotTo plots rows to an SVG file.
func plotTo(rows []row, path string) error {
	plots, err := plots(rows)
	if err != nil {
		return err
	}
	canvas := vgsvg.New(vg.Length(len(plots))*10*vg.Centimeter, 9*vg.Centimeter)
	tiles := draw.Tiles{Rows: 1, Cols: len(plots), PadX: 5 * vg.Millimeter, PadTop: 2 * vg.Millimeter, PadBottom: 2 * vg.Millimeter, PadLeft: 2 * vg.Millimeter, PadRight: 4 * vg.Millimeter}
	for i, row := range plot.Align([][]*plot.Plot{plots}, tiles, draw.New(canvas))[0] {
		plots[i].Draw(row)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
