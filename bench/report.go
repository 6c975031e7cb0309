package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// report is what is written down of a run.
type report struct {
	when    time.Time
	machine []string // a line each
	results []*result
}

// describe notes what was measured where.
func (r *report) describe(s *settings) {
	r.when = time.Now().UTC()
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	r.machine = []string{
		fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), cpu, said("uname", "-r"), runtime.Version()),
		"sluice at commit " + said("git", "rev-parse", "--short", "HEAD"),
		said("nginx", "-v"),
		strings.TrimSuffix(said("haproxy", "-v"), " - https://haproxy.org/"),
		fmt.Sprintf("%d rounds, a turn of %v each", s.rounds, s.duration),
	}
}

// said is the first line that a command prints.
func said(command string, args ...string) string {
	out, err := exec.Command(command, args...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return command + ": " + err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// write writes README.md and its charts.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# A run of the bench, %s\n\n", r.when.Format("2006-01-02 15:04 UTC"))
	for _, line := range r.machine {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	b.WriteString("\nMedians of all rounds; ratios are taken round by round, and of those the median, lowest and highest are given. CPU is the user and system\n" +
		"time of the proxy's process alone. Added latency is against no proxy in the same round. [performance.md](../../docs/performance.md) tells more.\n\n" +
		"![CPU for each request or chunk, nginx = 1](cost.svg)\n")
	for _, one := range r.results {
		one.table(&b)
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), b.Bytes(), 0o644); err != nil {
		return err
	}
	return r.chart(filepath.Join(dir, "cost.svg"))
}

// median is that of what of gives for each round, with the lowest and the highest.
func (r *result) median(subject string, of func(round int, t *turn) float64) (median, lowest, highest float64) {
	var all []float64
	for i := range r.turns[subject] {
		all = append(all, of(i, &r.turns[subject][i]))
	}
	slices.Sort(all)
	return all[len(all)/2], all[0], all[len(all)-1]
}

// ratio is a subject's CPU time for each unit against another's in the same round.
func (r *result) ratio(subject, to string) (median, lowest, highest float64) {
	return r.median(subject, func(i int, t *turn) float64 { return t.perUnit() / r.turns[to][i].perUnit() })
}

func (r *result) table(b *bytes.Buffer) {
	unit := r.unit()
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n| | %ss/s | CPU µs a %s | against nginx | against floor |", r.name, r.about, unit, unit)
	latency, open := r.turns[r.subjects[0]][0].p50 > 0, r.hold
	if latency {
		b.WriteString(" added p50 µs | added p99 µs |")
	}
	if open {
		b.WriteString(" KB an open stream |")
	}
	b.WriteString(" RSS MB |\n| --- | --- | --- | --- | --- |" + strings.Repeat(" --- |", map[bool]int{true: 2}[latency]+map[bool]int{true: 1}[open]+1) + "\n")
	for _, name := range r.subjects {
		if name == "direct" {
			continue
		}
		rate, _, _ := r.median(name, func(_ int, t *turn) float64 { return float64(t.units) / t.took.Seconds() })
		each, _, _ := r.median(name, func(_ int, t *turn) float64 { return t.perUnit() })
		fmt.Fprintf(b, "| %s | %.0f | %.2f |", name, rate, each)
		for _, to := range []string{"nginx", "floor"} {
			if len(r.turns[to]) == 0 {
				b.WriteString(" |")
				continue
			}
			m, lo, hi := r.ratio(name, to)
			fmt.Fprintf(b, " %.2f (%.2f–%.2f) |", m, lo, hi)
		}
		if latency {
			for _, of := range []func(*turn) time.Duration{func(t *turn) time.Duration { return t.p50 }, func(t *turn) time.Duration { return t.p99 }} {
				added, _, _ := r.median(name, func(i int, t *turn) float64 { return float64(of(t)-of(&r.turns["direct"][i])) / 1e3 })
				fmt.Fprintf(b, " %.0f |", added)
			}
		}
		if open {
			kb, _, _ := r.median(name, func(_ int, t *turn) float64 { return float64(t.perOpen) / 1024 })
			fmt.Fprintf(b, " %.1f |", kb)
		}
		rss, _, _ := r.median(name, func(_ int, t *turn) float64 { return float64(t.rss) / (1 << 20) })
		fmt.Fprintf(b, " %.0f |\n", rss)
	}
}

// chart draws what each proxy costs against nginx, for each scenario.
func (r *report) chart(path string) error {
	p := plot.New()
	p.Y.Label.Text = "CPU time, nginx = 1"
	p.Legend.Top, p.Legend.Left = true, true
	names := []string{"sluice", "floor", "haproxy"}
	var scenarios []string
	var compared []*result
	for _, one := range r.results {
		if len(one.turns["nginx"]) > 0 {
			compared = append(compared, one)
			scenarios = append(scenarios, one.name)
		}
	}
	if len(compared) == 0 {
		return nil
	}
	const width = vg.Length(14)
	highest := 1.0
	p.Add(plotter.NewGrid())
	for i, name := range names {
		values := make(plotter.Values, len(compared))
		for j, one := range compared {
			if len(one.turns[name]) > 0 {
				values[j], _, _ = one.ratio(name, "nginx")
			}
			highest = max(highest, values[j])
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.Color = palette[i]
		bars.LineStyle.Width = 0
		bars.Offset = width * vg.Length(i-1)
		p.Add(bars)
		p.Legend.Add(name, bars)
	}
	nginx := plotter.NewFunction(func(float64) float64 { return 1 })
	nginx.Width = 1
	p.Add(nginx)
	p.Legend.Add("nginx", nginx)
	p.NominalX(scenarios...)
	p.X.Min, p.X.Max = -0.7, float64(len(scenarios))-0.3
	p.Y.Min, p.Y.Max = 0, highest*1.4 // the legend stands above the bars
	return p.Save(vg.Length(len(scenarios))*100, 320, path)
}
