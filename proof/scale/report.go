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

// table writes rows as a Markdown table.
func table(w io.Writer, rows []row) {
	fmt.Fprintln(w, "| | one turn | turns of a member: least, most | all waiting: threads | descriptors | private memory | CPU | wake-ups | one turn, after the wait |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, r := range rows {
		fmt.Fprintf(w, "| %d %s | %s | %d, %d | %.1f | %.1f | %.1f kB | %.2f %% | %.1f /s | %s |\n", r.members(), r.kind,
			microseconds(r.perTurn), r.least, r.most, r.threads, r.descriptors, r.memory, 100*r.idle, r.wakeups, microseconds(r.perTurnWaiting))
	}
}

func microseconds(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d)/1e3) }

// page returns the page with the table and its explanation.
func page(table string) []byte {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	var b bytes.Buffer
	fmt.Fprintf(&b, `# Scale

This page shows how the costs grow with the number of waiters. Compare the rows with each other,
not with other machines. In the directory proof, `+"`go run ./scale -o ../docs`"+` measured them: with
%s, Linux %s, on %d cores that are shared with other machines.

%s
![The figures of the table as a plot](scale.svg)

- **One turn**: all members contend without a pause. In a turn, a member acquires the lock, reads
  and writes a number in a file, and releases the lock. The figure is the total time divided by the
  number of turns. The number in the file is correct at the end, so no two members had the lock at
  once.
- **Turns of a member**: the turns of the member that had the fewest, and of the one that had the
  most.
- **All waiting**: another process holds everything, and all members wait. Threads and descriptors
  are those of one process. CPU and wake-ups are those of all processes together; 100 %% is one
  core.
- **Private memory** is that of one waiter. For processes it is all memory of the process,
  including what contention left behind. For goroutines it is the growth of the process, divided by
  their number.
- **One turn, after the wait**: the time from the release until all waiters have had their turn,
  divided by their number.
`, runtime.Version(), strings.TrimSpace(string(kernel)), runtime.NumCPU(), table)
	return b.Bytes()
}

// plots returns one plot for each figure, with a line for each kind of
// workload.
func plots(rows []row) (all []*plot.Plot, err error) {
	for _, figure := range []struct {
		title string
		of    func(r row) float64
	}{
		{"one turn (µs)", func(r row) float64 { return float64(r.perTurn) / 1e3 }},
		{"private memory of a waiter (kB)", func(r row) float64 { return r.memory }},
		{"most turns of a member / least", func(r row) float64 { return float64(r.most) / float64(max(r.least, 1)) }},
	} {
		p := plot.New()
		p.Title.Text = figure.title
		p.X.Label.Text = "waiters"
		p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
		p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
		p.Legend.Top, p.Legend.Left = true, true
		p.Add(plotter.NewGrid())
		for i, group := range byKind(rows) {
			points := make(plotter.XYs, len(group))
			for j, r := range group {
				points[j].X, points[j].Y = float64(r.members()), figure.of(r)
			}
			line, dots, err := plotter.NewLinePoints(points)
			if err != nil {
				return nil, err
			}
			line.Color, dots.Color, dots.Shape = plotutil.Color(i), plotutil.Color(i), plotutil.Shape(i)
			p.Add(line, dots)
			if len(all) == 0 {
				name, _, _ := strings.Cut(group[0].kind, ",")
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

// decades returns the powers of ten that enclose an interval.
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

// plotTo draws all plots to an SVG file.
func plotTo(rows []row, path string) error {
	plots, err := plots(rows)
	if err != nil {
		return err
	}
	canvas := vgsvg.New(vg.Length(len(plots))*10*vg.Centimeter, 9*vg.Centimeter)
	tiles := draw.Tiles{
		Rows:      1,
		Cols:      len(plots),
		PadX:      5 * vg.Millimeter,
		PadTop:    2 * vg.Millimeter,
		PadBottom: 2 * vg.Millimeter,
		PadLeft:   2 * vg.Millimeter,
		PadRight:  4 * vg.Millimeter,
	}
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
