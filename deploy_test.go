package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

// tool runs a program that not every machine has; .ci/run installs those that are meant.
func tool(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(name + " is not installed")
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "no help text") {
		t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
}

// TestMetricsAreWellFormed: what a scrape of a process that has served gets.
func TestMetricsAreWellFormed(t *testing.T) {
	n := begin(t, provider(t, &upstreamtest.Provider{Chunks: 3}), "")
	key := n.key(`{"name":"x"}`)
	for _, body := range []string{`{"model":"demo"}`, `{"model":"demo","stream":true}`, `{"model":"nope"}`} {
		n.call("POST", n.data+"/v1/chat/completions", key, body)
	}
	status, text := n.call("GET", n.admin+"/metrics", adminToken, "")
	if status != 200 || !strings.Contains(text, `sluice_keys{state="active"} 1`+"\n") {
		t.Fatalf("%d %s", status, text)
	}
	tool(t, text, "promtool", "check", "metrics")
}

func TestAlertRules(t *testing.T) {
	tool(t, "", "promtool", "check", "rules", "deploy/prometheus/alerts.yaml")
	tool(t, "", "promtool", "test", "rules", "deploy/prometheus/alerts_test.yaml")
	tool(t, "", "promtool", "check", "config", "--syntax-only", "deploy/prometheus/prometheus.yml")
	wantKnownSeries(t, read(t, "deploy/prometheus/alerts.yaml"))
}

// TestDashboard: every query is one that Prometheus takes, of series that there are.
func TestDashboard(t *testing.T) {
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text := read(t, "deploy/grafana/dashboard.json")
	if err := json.Unmarshal([]byte(text), &board); err != nil {
		t.Fatal(err)
	}
	rules := &strings.Builder{}
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	number := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			number++
			// A rule knows none of the dashboard's variables.
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
			quoted, _ := json.Marshal(expr)
			rules.WriteString("  - {record: 'q:" + strings.Repeat("i", number) + "', expr: " + string(quoted) + "}\n")
		}
	}
	if number < 20 {
		t.Fatalf("%d queries", number)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, rules.String())
	tool(t, "", "promtool", "check", "rules", path)
	wantKnownSeries(t, text)
	for _, name := range series(read(t, "docs/metrics.md"), "(?m)^\\| `(sluice_[a-z_]+)`") {
		if !strings.Contains(text, name) && !slices.Contains([]string{"sluice_upstream_max_in_flight", "sluice_config_reloads_total", "sluice_config_last_reload_success_timestamp_seconds"}, name) {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func series(text, pattern string) (names []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// wantKnownSeries fails for names in text that docs/metrics.md, which is held against the source,
// does not have.
func wantKnownSeries(t *testing.T, text string) {
	t.Helper()
	known := series(read(t, "docs/metrics.md"), "(?m)^\\| `(sluice_[a-z_]+)`")
	for _, name := range series(text, `\b(sluice_[a-z_]+)`) {
		name = strings.TrimSuffix(name, "_bucket")
		if !slices.Contains(known, name) {
			t.Errorf("there is no series %s", name)
		}
	}
}
