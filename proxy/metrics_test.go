package proxy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/expfmt"
)

// scrape is what /metrics shows.
func (g *gateway) scrape() string {
	g.t.Helper()
	families, err := g.m.Registry.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			g.t.Fatal(err)
		}
	}
	return text.String()
}

// wantSeries fails for lines that /metrics does not have.
func (g *gateway) wantSeries(lines ...string) {
	g.t.Helper()
	text := g.scrape()
	for _, want := range lines {
		if !strings.Contains(text, want+"\n") {
			name, _, _ := strings.Cut(want, "{")
			g.t.Errorf("there is no %s; there are\n%s", want, only(text, name))
		}
	}
}

// only are the samples in text whose names begin with prefix.
func only(text, prefix string) string {
	var some strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			some.WriteString(line)
		}
	}
	return some.String()
}

// values are those that a label has in text.
func values(text, label string) []string {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`[{,]`+label+`="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		all[m[1]] = true
	}
	return slices.Sorted(maps.Keys(all))
}

func (g *gateway) wantValues(label string, want ...string) {
	g.t.Helper()
	if got := values(g.scrape(), label); !slices.Equal(got, want) {
		g.t.Errorf("the values of %s are %q, not %q", label, got, want)
	}
}

// TestSeriesExistOnceTheyHaveCounted: ten thousand models at three upstreams cost a scrape nothing
// until they are asked for, and after it only what they have counted.
func TestSeriesExistOnceTheyHaveCounted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		text := threeUpstreams + "  m: {targets: [{upstream: a}, {upstream: b}, {upstream: c}]}\n"
		g, _ := startScripted(t, text, map[string]steps{"a": {slow(0)}, "b": {slow(0)}, "c": {slow(0)}})
		cfg := load(t, text, "")
		for i := range 10_000 {
			cfg.Models[fmt.Sprintf("model-%d", i)] = cfg.Models["m"]
		}
		if err := g.p.Apply(cfg); err != nil {
			t.Fatal(err)
		}
		if n := len(g.scrape()); n > 100_000 {
			t.Errorf("an idle scrape has %d bytes", n)
		}
		g.wantValues("model")
		g.wantValues("upstream")
		g.wantSeries(`sluice_config_reloads_total{result="failure"} 0`, `sluice_errors_total{kind="upstream_failed"} 0`)

		var asked []string
		for i := range 10 {
			model := fmt.Sprintf("model-%d", i)
			asked = append(asked, model)
			if a := g.post("/v1/chat/completions", `{"model":"`+model+`"}`); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		g.wantNothingLeft() // what is counted at a request's end is
		g.wantValues("model", asked...)
		g.wantValues("class", "2xx")
		if n := len(g.scrape()); n > 100_000 {
			t.Errorf("a scrape has %d bytes", n)
		}
	})
}

// TestSeriesGoWithTheirModel: a reload removes the series of the models and upstreams that it
// removes. A request that is in flight meanwhile does not bring them back, and one that comes when
// the model is there again counts from zero.
func TestSeriesGoWithTheirModel(t *testing.T) {
	const (
		m = "  m: {targets: [{upstream: a}]}\n"
		n = "  n: {targets: [{upstream: b}]}\n"
	)
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, threeUpstreams+m+n, map[string]steps{"a": {status("500 No"), slow(0), slow(time.Minute), slow(0)}, "b": {slow(0)}})
		ask := func(model string) {
			if a := g.post("/v1/chat/completions", `{"model":"`+model+`"}`); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		apply := func(text string) {
			if err := g.p.Apply(load(t, text, "")); err != nil {
				t.Fatal(err)
			}
		}
		ask("m") // again, after a failure
		ask("n")
		g.wantNothingLeft()
		g.wantValues("model", "m", "n")
		g.wantSeries(`sluice_retries_total{upstream="a"} 1`, `sluice_requests_total{class="2xx",model="m",upstream="a"} 1`,
			`sluice_upstream_failures_total{cause="status",upstream="a"} 1`)

		var inFlight sync.WaitGroup
		inFlight.Go(func() { ask("m") })
		synctest.Wait()
		apply(strings.Replace(threeUpstreams, `a: {base_url: "http://a/v1"}, `, "", 1) + n)
		g.wantValues("model", "n")
		g.wantValues("upstream", "b")
		inFlight.Wait()
		g.wantNothingLeft()
		g.wantValues("model", "n")
		g.wantValues("upstream", "b")

		apply(threeUpstreams + m + n)
		g.wantValues("model", "n")
		ask("m")
		ask("n")
		g.wantNothingLeft()
		g.wantSeries(`sluice_requests_total{class="2xx",model="m",upstream="a"} 1`, `sluice_requests_total{class="2xx",model="n",upstream="b"} 2`,
			`sluice_attempts_total{model="m",upstream="a"} 1`)
	})
}
