package proxy

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/keys"
)

// drained takes an upstream of g out of service, or one of its targets, or with on false back in.
func (g *gateway) drained(name string, on bool) {
	g.t.Helper()
	upstream, target, _ := strings.Cut(name, "/")
	if _, err := g.p.pool.Drain(upstream, target, on); err != nil {
		g.t.Error(err)
	}
}

const twoUpstreams = `
admin: {token: 0123456789abcdef}
retry: {base: 1ms, max: 1ms}
upstreams: {a: {base_url: "http://a/v1"}, b: {base_url: "http://b/v1"}}
models:
`

// TestDrained: what is drained is passed over, and why nothing serves is said.
func TestDrained(t *testing.T) {
	const both = "  m: {targets: [{upstream: a, weight: 1000}, {upstream: b}]}\n"
	const fallback = "  m: {targets: [{upstream: a, model: x}], fallbacks: [n]}\n  n: {targets: [{upstream: a, model: y}]}\n"
	for _, test := range []struct {
		name, models string
		drain        []string
		status       int
		trail        string
		says         string
	}{
		{"an upstream", both, []string{"a"}, 200, "m@b;200;0", ""},
		{"a target", both, []string{"a/m"}, 200, "m@b;200;0", ""},
		{"all", both, []string{"a", "b/m"}, 503, "", "all targets of model m are drained: an operator has taken them out of service"},
		{"the only one", "  m: {targets: [{upstream: a}]}\n", []string{"a"}, 503, "", "are drained"},
		{"a target, for a fallback at the same upstream", fallback, []string{"a/x"}, 200, "n@a;200;0", ""},
		{"the upstream, and its fallback there", fallback, []string{"a"}, 503, "", "are drained"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, hosts := startScripted(t, twoUpstreams+test.models, map[string]steps{"a": {slow(0)}, "b": {slow(0)}})
				_, secret := g.key(keys.Spec{Name: "x", Limits: keys.Limits{Requests: new(int64(1))}})
				for _, name := range test.drain {
					g.drained(name, true)
				}
				post := func() response { return g.post("/v1/chat/completions", plainM, "Authorization", "Bearer "+secret) }
				a := post()
				a.want(t, test.status, test.trail)
				if test.says != "" && (!strings.Contains(a.body, `"code":"no_healthy_upstream"`) || !strings.Contains(a.body, test.says) || a.header.Get("Retry-After") != "") {
					t.Errorf("%s %v", a.body, a.header)
				}
				for _, name := range test.drain {
					g.drained(name, false)
				}
				if test.status == 503 {
					if a := post(); a.status != 200 { // the refusal cost the key nothing
						t.Errorf("after undrain: %d %s", a.status, a.body)
					}
				}
				if test.status == 200 && test.drain[0] == "a" && hosts["a"].Asked() != 0 {
					t.Error("it was asked")
				}
			})
		})
	}
}

// TestDrainLeavesWhatIsInFlight, and what waits for a turn goes elsewhere.
func TestDrainLeavesWhatIsInFlight(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, full+"  m: {targets: [{upstream: a}], fallbacks: [n]}\n  n: {targets: [{upstream: b, model: y}]}\n",
			map[string]steps{"a": {slow(5 * time.Second)}, "b": {slow(0)}})
		g.drained("b", true)
		var wg sync.WaitGroup
		g.busy(&wg, 1, g.secret, func(_ int, a response) { a.want(t, 200, "m@a;200;5000") })
		g.busy(&wg, 1, g.secret, func(_ int, a response) { a.want(t, 200, "n@b;200;0") }) // waits for a turn at a
		g.drained("a", true)
		g.drained("b", false)
		synctest.Wait()
		wg.Wait()
		if hosts["a"].Asked() != 1 {
			t.Errorf("a was asked %d times", hosts["a"].Asked())
		}
	})
}

// TestDrainSurvivesReloads, of another address too. A name that has gone is forgotten.
func TestDrainSurvivesReloads(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const models = "  m: {targets: [{upstream: a, model: x}]}\n  n: {targets: [{upstream: b, model: y}]}\n"
		g, _ := startScripted(t, twoUpstreams+models, map[string]steps{"a": {slow(0)}, "b": {slow(0)}, "c": {slow(0)}})
		want := func(after string, m, n int) {
			t.Helper()
			gotM, gotN := g.post("/v1/chat/completions", plainM).status, g.post("/v1/chat/completions", `{"model":"n"}`).status
			if gotM != m || gotN != n {
				t.Errorf("after %s: %d and %d", after, gotM, gotN)
			}
		}
		reload := func(text string) {
			t.Helper()
			if err := g.p.Apply(load(t, text, "")); err != nil {
				t.Fatal(err)
			}
		}
		g.drained("a", true)
		g.drained("b/y", true)
		want("drain", 503, 503)
		reload(twoUpstreams + models)
		want("a reload", 503, 503)
		reload(strings.ReplaceAll(twoUpstreams, "http://a", "http://c") + models)
		want("another address", 503, 503)
		for _, u := range g.p.Set().Upstreams {
			s := u.Status()
			if s.Drained != (s.Name == "a") || !s.Targets[0].Drained {
				t.Errorf("%+v", s)
			}
		}
		reload(twoUpstreams + "  n: {targets: [{upstream: b, model: other}]}\n")
		reload(twoUpstreams + models)
		want("a configuration without the target", 503, 200)
		g.drained("a", false)
		want("undrain", 200, 200)
	})
}

// TestDrainBesideOtherReasons: a rest after a 429 is not tried out at a drained target, and the reasons
// of those that are in service decide what is answered.
func TestDrainBesideOtherReasons(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, twoUpstreams+"  m: {targets: [{upstream: a}, {upstream: b}], max_retries: 0}\n",
			map[string]steps{"a": {status("429 No", "Retry-After: 60")}, "b": {status("429 No", "Retry-After: 60")}})
		g.drained("b", true)
		g.post("/v1/chat/completions", plainM).want(t, 429, "m@a;429;0")
		if a := g.post("/v1/chat/completions", plainM); a.status != 429 || !strings.Contains(a.body, "rate-limited") {
			t.Errorf("one rests, one is drained: %d %s", a.status, a.body)
		}
		g.drained("a", true)
		time.Sleep(2 * time.Second) // a target that rests is tried once a second
		if a := g.post("/v1/chat/completions", plainM); a.status != 503 || !strings.Contains(a.body, "are drained") {
			t.Errorf("both are drained: %d %s", a.status, a.body)
		}
		if hosts["a"].Asked() != 1 || hosts["b"].Asked() != 0 {
			t.Errorf("asked %d and %d times", hosts["a"].Asked(), hosts["b"].Asked())
		}
	})
}
