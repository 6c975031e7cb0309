package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/valyala/fasthttp"

	"sluice/config"
	"sluice/keys"
	"sluice/pool"
	"sluice/sse"

	"sluice/internal/upstreamtest"
)

// three upstreams; the models follow.
const threeUpstreams = `
admin: {token: 0123456789abcdef}
upstreams: {a: {base_url: "http://a/v1"}, b: {base_url: "http://b/v1"}, c: {base_url: "http://c/v1"}}
models:
`

type (
	step  = upstreamtest.Step
	steps = []upstreamtest.Step
)

// startScripted serves text with upstreams that follow their scripts.
func startScripted(t *testing.T, text string, scripts map[string]steps) (*gateway, upstreamtest.Hosts) {
	t.Helper()
	hosts := upstreamtest.Hosts{}
	for name, list := range scripts {
		hosts[name] = upstreamtest.NewScript(t, nil, list...)
	}
	return startInMemory(t, text, "", hosts.Dial), hosts
}

// status is an upstream's answer with that status, and header lines.
func status(line string, header ...string) step {
	return upstreamtest.Say(upstreamtest.Whole(line, "application/json", strings.Join(append(header, ""), "\r\n"), errorBody))
}

const (
	plainM  = `{"model":"m"}`
	streamM = `{"model":"m","stream":true}`
)

// want holds an answer's status and trail against what must have been.
func (a response) want(t *testing.T, status int, trail string) {
	t.Helper()
	if got := a.header.Get("X-Sluice-Trail"); a.status != status || got != trail {
		t.Errorf("%d, trail %q; want %d, %q; %s", a.status, got, status, trail, a.body)
	}
}

// trip opens the breakers of a model's targets.
func (g *gateway) trip(model string) {
	for _, target := range g.p.Set().Models[model].Targets {
		for place, ok := target.Enter(g.p.clock()); ok; place, ok = target.Enter(g.p.clock()) {
			target.Leave(g.p.clock(), place, pool.Failed)
		}
	}
}

// timed is how long f takes.
func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func TestBackoff(t *testing.T) {
	r := &request{snapshot: &snapshot{config: config.Default()}}
	for try, ceiling := range map[int]time.Duration{1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 6: 3200 * time.Millisecond, 7: 5 * time.Second, 31: 5 * time.Second} {
		least, most := time.Duration(1<<62), time.Duration(0)
		for range 10_000 {
			d := r.backoff(try)
			least, most = min(least, d), max(most, d)
		}
		// Full jitter: from nothing to the ceiling.
		if least < 0 || least > ceiling/100 || most > ceiling || most < ceiling-ceiling/100 {
			t.Errorf("try %d: %v to %v, want 0 to %v", try, least, most, ceiling)
		}
	}
	r.snapshot.config.Retry = config.Retry{Base: config.Duration(time.Hour), Max: config.Duration(2 * time.Hour)}
	if d := r.backoff(31); d < 0 || d > 2*time.Hour {
		t.Errorf("an overflow becomes %v", d)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"Retry-After: 7":    7 * time.Second,
		"Retry-After: 0.25": 250 * time.Millisecond,
		"Retry-After: 0":    0,
		"Retry-After: -5":   0,
		"Retry-After: NaN":  0,
		"Retry-After: soon": 0,
		"Retry-After: Sun, 22 Nov 2026 10:00:09 GMT": 9 * time.Second,
		"Retry-After: Sun, 22 Nov 2026 09:00:00 GMT": 0,
		"retry-after-ms: 1500":                       1500 * time.Millisecond,
		"Retry-After: 7\r\nretry-after-ms: 20":       20 * time.Millisecond,
		"Retry-After: 7\r\nretry-after-ms: x":        7 * time.Second,
		"Retry-After: 1e300":                         0,
		"Retry-After: 1e999":                         0,
		"Retry-After: inf":                           0,
		"Retry-After: -inf":                          0,
		"Retry-After: 3600":                          time.Hour,
		"Retry-After: 3600.5":                        0,
		"Retry-After: 86400":                         0,
		"Retry-After: Sun, 22 Nov 2026 11:00:00 GMT": time.Hour,
		"Retry-After: Sun, 22 Nov 2026 11:00:01 GMT": 0,
		"Retry-After: Mon, 23 Nov 2026 10:00:00 GMT": 0,
		"retry-after-ms: 3600001":                    0,
		"Retry-After: 7\r\nretry-after-ms: NaN":      7 * time.Second,
		"Retry-After: 7\r\nretry-after-ms: -1":       7 * time.Second,
		"Retry-After: 7\r\nretry-after-ms: Infinity": 7 * time.Second,
		"Retry-After: 7\r\nretry-after-ms: 0":        0,
		"X-Other: 7":                                 0,
	} {
		var h fasthttp.ResponseHeader
		for line := range strings.SplitSeq(header, "\r\n") {
			name, value, _ := strings.Cut(line, ": ")
			h.Set(name, value)
		}
		if got := retryAfter(&h, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}

// TestBackoffIsWaited: what is drawn is slept.
func TestBackoffIsWaited(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, "retry: {base: 1s, max: 1s, max_retries: 1}\n"+threeUpstreams+"  m: {targets: [{upstream: a}, {upstream: b}]}\n",
			map[string]steps{"a": {status("429 Slow")}, "b": {status("429 Slow")}})
		took := timed(func() {
			for range 100 {
				g.post("/v1/chat/completions", plainM)
			}
		})
		if took < 30*time.Second || took > 70*time.Second { // on average 50, with a deviation of 3
			t.Errorf("100 waits of up to a second took %v", took)
		}
	})
}

// TestRestOfAnother: a target that another request has put to rest is waited for.
func TestRestOfAnother(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var g *gateway
		g, _ = startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}]}\n", map[string]steps{"a": {{Answer: func(conn net.Conn, r *upstreamtest.Recorded) {
			g.p.Set().Models["m"].Targets[0].Rest(g.p.clock(), 5*time.Second)
			status("500 Oh").Answer(conn, r)
		}}, good}})
		took := timed(func() { g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;500;0,m@a;200;0") })
		if took != 5*time.Second {
			t.Errorf("it waited %v", took)
		}
	})
}

// TestRetryAfterIsObeyed where it fits into the deadline; else the model is given up at once.
func TestRetryAfterIsObeyed(t *testing.T) {
	const one = threeUpstreams + "  m: {targets: [{upstream: a}], fallbacks: [n], timeouts: {total: 30s}}\n  n: {targets: [{upstream: b}]}\n"
	for _, test := range []struct {
		name, status, header string
		wait                 time.Duration // negative: given up
	}{
		{"seconds", "429 Too Many Requests", "Retry-After: 7", 7 * time.Second},
		{"seconds, of another status", "503 Service Unavailable", "Retry-After: 7", 7 * time.Second},
		{"milliseconds", "429 Too Many Requests", "Retry-After-Ms: 1500", 1500 * time.Millisecond},
		{"a date", "429 Too Many Requests", "Retry-After: Sat, 01 Jan 2000 00:00:12 GMT", 12 * time.Second}, // the bubble's clock begins with 2000
		{"shorter than the backoff may be", "429 Too Many Requests", "Retry-After-Ms: 1", 0},
		{"just in time", "429 Too Many Requests", "Retry-After: 29", 29 * time.Second},
		{"too late", "429 Too Many Requests", "Retry-After: 30", -1},
		{"too late, of another status", "502 Bad Gateway", "Retry-After: 3000", -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, one, map[string]steps{"a": {status(test.status, test.header), good}, "b": {good}})
				var a response
				took := timed(func() { a = g.post("/v1/chat/completions", plainM) })
				if test.wait < 0 {
					a.want(t, 200, "m@a;"+test.status[:3]+";0,n@b;200;0")
				} else {
					a.want(t, 200, "m@a;"+test.status[:3]+";0,m@a;200;0")
				}
				if took < test.wait || took > max(test.wait, retryBase) || test.wait < 0 && took != 0 {
					t.Errorf("it took %v", took)
				}
				g.wantNothingLeft()
			})
		})
	}
}

// TestAnotherTargetIsPreferred for a retry, and who asked to be left alone is.
func TestAnotherTargetIsPreferred(t *testing.T) {
	const two = threeUpstreams + "  m: {targets: [{upstream: a, weight: 1000000}, {upstream: b}, {upstream: c}], max_retries: 5}\n"
	bad := status("500 Oh")
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, two, map[string]steps{"a": {bad}, "b": {bad}, "c": {bad}})
		var seen []string
		for _, part := range strings.Split(g.post("/v1/chat/completions", plainM).header.Get("X-Sluice-Trail"), ",") {
			seen = append(seen, part[2:3])
		}
		if len(seen) != 6 || seen[0] != "a" || seen[1] == seen[0] || seen[2] == seen[1] || seen[2] == seen[0] || seen[3] == seen[2] || seen[4] == seen[3] {
			t.Errorf("asked in the order %v", seen)
		}
	})
	// However often: of those asked least often.
	for range 30 {
		inBubble(t, func(t *testing.T) {
			g, hosts := startScripted(t, two, map[string]steps{"a": {bad}, "b": {bad}, "c": {bad}})
			g.post("/v1/chat/completions", plainM)
			if a, b, c := hosts["a"].Asked(), hosts["b"].Asked(), hosts["c"].Asked(); a != 2 || b != 2 || c != 2 {
				t.Errorf("asked %d, %d and %d times", a, b, c)
			}
		})
	}
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, strings.Replace(two, ", {upstream: c}", "", 1), map[string]steps{"a": {status("429 Slow", "Retry-After: 20"), good}, "b": {good}})
		took := timed(func() { g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;429;0,m@b;200;0") })
		if took > retryBase {
			t.Errorf("it waited %v for a target that it did not need", took)
		}
		for range 10 {
			g.post("/v1/chat/completions", plainM).want(t, 200, "m@b;200;0")
		}
		time.Sleep(20 * time.Second)
		g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0")
		if hosts["a"].Asked() != 2 {
			t.Errorf("a was asked %d times", hosts["a"].Asked())
		}
	})
}

// TestSeveralAskToWait: each target's own Retry-After holds for it, and the first to serve again
// is waited for.
func TestSeveralAskToWait(t *testing.T) {
	const two = threeUpstreams + "  m: {targets: [{upstream: a, weight: 1000000}, {upstream: b}], max_retries: 2}\n"
	for _, test := range []struct {
		name        string
		a, b        step
		least, most time.Duration
	}{
		{"another was asked in between", status("503 Wait", "Retry-After: 20"), status("500 Oh"), 20 * time.Second, 20 * time.Second},
		{"the first rests for less", status("429 Wait", "Retry-After: 1"), status("429 Wait", "Retry-After: 3600"), time.Second, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, two, map[string]steps{"a": {test.a, good}, "b": {test.b}})
				var a response
				took := timed(func() { a = g.post("/v1/chat/completions", plainM) })
				if a.status != 200 || a.header.Get("X-Sluice-Attempts") != "3" || took < test.least || took > test.most+retryBase {
					t.Errorf("%d %s after %v", a.status, a.header.Get("X-Sluice-Trail"), took)
				}
			})
		})
	}
}

// TestNoneServes: nothing is sent where all are open or rest, and the client hears when to
// come again: 429 if all of them only rest.
func TestNoneServes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}, {upstream: b}], max_retries: 1, timeouts: {total: 50s}}\n",
			map[string]steps{"a": {status("429 Slow", "Retry-After: 60"), good}, "b": {status("429 Slow", "Retry-After: 90"), good}})
		// Both ask for more time than there is patience for; the second one's answer stays.
		a := g.post("/v1/chat/completions", plainM)
		if a.status != 429 || a.header.Get("Retry-After") == "" || a.header.Get("X-Sluice-Attempts") != "2" {
			t.Errorf("%d %v", a.status, a.header)
		}
		a = g.post("/v1/chat/completions", plainM)
		errorRow{429, "rate_limit_error", "", "rate_limit_exceeded", "all targets of model m are rate-limited by their upstreams"}.check(t, a)
		if a.header.Get("Retry-After") != "60" || a.header.Get("X-Sluice-Attempts") != "0" || hosts["a"].Asked() != 1 || hosts["b"].Asked() != 1 {
			t.Errorf("%v, a asked %d times, b %d", a.header, hosts["a"].Asked(), hosts["b"].Asked())
		}
		g.wantSeries(`sluice_errors_total{kind="upstream_limited"} 1`, `sluice_refused_total{code="rate_limit_exceeded"} 1`)
		time.Sleep(60 * time.Second)
		g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0")
	})
	// One of several reasons is no matter of a rate limit.
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, "breaker: {pause: 30s}\n"+threeUpstreams+"  m: {targets: [{upstream: a}], max_retries: 0, fallbacks: [n]}\n  n: {targets: [{upstream: b}]}\n",
			map[string]steps{"a": {good}, "b": {good}})
		g.trip("n")
		g.p.Set().Models["m"].Targets[0].Rest(g.p.clock(), 20*time.Second)
		a := g.post("/v1/chat/completions", plainM)
		errorRow{503, "overloaded_error", "", "no_healthy_upstream", "model m are unavailable (circuit open, rate-limited)"}.check(t, a)
		if a.header.Get("Retry-After") != "20" {
			t.Errorf("%v", a.header)
		}
	})
}

// TestRestsAreTried: where nothing else serves, one request a second is sent to a target that rests, and
// its success ends the rest.
func TestRestsAreTried(t *testing.T) {
	const text = threeUpstreams + "  m: {targets: [{upstream: a}], max_retries: 0}\n  pair: {targets: [{upstream: b}, {upstream: c}], max_retries: 0}\n"
	limited := status("429 Slow", "Retry-After: 600")
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, text, map[string]steps{"a": {limited, limited, limited, status("404 Not Found"), status("429 Slow"), good}})
		ask := func(asked int, statuses string) {
			t.Helper()
			var got []string
			for range 4 {
				got = append(got, fmt.Sprint(g.post("/v1/chat/completions", plainM).status))
			}
			if s := strings.Join(got, " "); s != statuses || hosts["a"].Asked() != asked {
				t.Errorf("%s, asked %d times; want %s, %d", s, hosts["a"].Asked(), statuses, asked)
			}
		}
		ask(1, "429 429 429 429")
		for asked := 2; asked <= 3; asked++ {
			time.Sleep(time.Second)
			ask(asked, "429 429 429 429")
		}
		time.Sleep(time.Second)
		ask(4, "404 429 429 429") // an error is no proof that it serves
		time.Sleep(time.Second)
		ask(5, "429 429 429 429")
		time.Sleep(time.Second - 1)
		ask(5, "429 429 429 429")
		time.Sleep(time.Nanosecond)
		ask(9, "200 200 200 200")
		g.wantNothingLeft()
	})
	// A target that serves is asked instead, and a key that is at its limit takes nobody's turn.
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, text, map[string]steps{"a": {good}, "b": {limited}, "c": {good}})
		g.p.Set().Models["pair"].Targets[0].Rest(g.p.clock(), time.Minute)
		g.p.Set().Models["m"].Targets[0].Rest(g.p.clock(), time.Minute)
		time.Sleep(2 * time.Second)
		for range 3 {
			g.post("/v1/chat/completions", `{"model":"pair"}`).want(t, 200, "pair@c;200;0")
		}
		g.post("/v1/chat/completions", `{"gateway":{"models":["m","pair"]}}`).want(t, 200, "pair@c;200;0")
		one, rich := int64(1), g.secret
		_, g.secret = g.key(keys.Spec{Name: "at its limit", Limits: keys.Limits{Requests: &one}})
		g.post("/v1/chat/completions", `{"model":"pair"}`).want(t, 200, "pair@c;200;0")
		errorRow{429, "rate_limit_error", "", "rate_limit_exceeded", "limits.requests"}.check(t, g.post("/v1/chat/completions", plainM))
		g.secret = rich
		g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0")
		if hosts["b"].Asked() != 0 {
			t.Error("a target that rests was asked, though another served")
		}
		g.wantNothingLeft()
	})
}

// TestOneKeysLimit: a target that limits one client's requests goes on to serve the others, though
// not for the first second.
func TestOneKeysLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		picky := step{Answer: func(conn net.Conn, r *upstreamtest.Recorded) {
			if strings.Contains(string(r.Body), `"user":"greedy"`) {
				status("429 Slow", "Retry-After: 3600").Answer(conn, r)
				return
			}
			good.Answer(conn, r)
		}}
		g, _ := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}], max_retries: 0}\n", map[string]steps{"a": {picky}})
		g.post("/v1/chat/completions", `{"model":"m","user":"greedy"}`).want(t, 429, "m@a;429;0")
		served := 0
		for range 600 {
			if g.post("/v1/chat/completions", plainM).status == 200 {
				served++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if served != 590 {
			t.Errorf("%d of 600 requests in a minute were served", served)
		}
	})
}

// TestBreakerOpens: after five failures nothing is sent until the pause is over, and then one
// probe, whoever else asks; a reload changes nothing of that.
func TestBreakerOpens(t *testing.T) {
	const text = threeUpstreams + "  m: {targets: [{upstream: a}], max_retries: 0}\n"
	inBubble(t, func(t *testing.T) {
		slow := step{Answer: func(conn net.Conn, r *upstreamtest.Recorded) {
			time.Sleep(3 * time.Second)
			good.Answer(conn, r)
		}}
		bad := status("500 Oh")
		g, hosts := startScripted(t, text, map[string]steps{"a": {bad, bad, upstreamtest.Say("not HTTP\r\n\r\n"), bad, upstreamtest.Refuse(), upstreamtest.Refuse(), slow, good}})
		for range 5 {
			if a := g.post("/v1/chat/completions", plainM); a.status < 500 || a.header.Get("X-Sluice-Attempts") != "1" {
				t.Errorf("%d %v", a.status, a.header)
			}
		}
		shut := func(retryAfter string, asked int) {
			t.Helper()
			a := g.post("/v1/chat/completions", plainM)
			errorRow{503, "overloaded_error", "", "no_healthy_upstream", ""}.check(t, a)
			if a.header.Get("Retry-After") != retryAfter || hosts["a"].Asked() != asked {
				t.Errorf("Retry-After %s, asked %d times", a.header.Get("Retry-After"), hosts["a"].Asked())
			}
		}
		shut("1", 5)
		if err := g.p.Apply(load(t, text+"access_log: true\n", "")); err != nil {
			t.Fatal(err)
		}
		shut("1", 5)
		time.Sleep(time.Second)
		if a := g.post("/v1/chat/completions", plainM); a.status != 502 { // the probe
			t.Errorf("%d %s", a.status, a.body)
		}
		shut("2", 6)
		time.Sleep(2 * time.Second)
		probed := make(chan response)
		go func() { probed <- g.post("/v1/chat/completions", plainM) }()
		synctest.Wait()
		shut("1", 7) // the probe is under way
		(<-probed).want(t, 200, "m@a;200;3000")
		g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0")
		for _, says := range []string{`"msg":"breaker open","model":"m","upstream":"a","target":"m"`, `"msg":"breaker closed","model":"m"`} {
			if strings.Count(g.log.String(), says) != 1 {
				t.Errorf("not once in the log: %s", says)
			}
		}
		g.wantNothingLeft()
	})
}

// TestEveryAttemptCounts: those that are repeated, too, and each as what it was.
func TestEveryAttemptCounts(t *testing.T) {
	const text = threeUpstreams + "  m: {targets: [{upstream: a}], max_retries: 9, fallbacks: [n]}\n  n: {targets: [{upstream: b}], max_retries: 0}\n"
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, text, map[string]steps{"a": {status("500 Oh")}, "b": {good}})
		if a := g.post("/v1/chat/completions", plainM); a.status != 200 || a.header.Get("X-Sluice-Attempts") != "6" || hosts["a"].Asked() != 5 {
			t.Errorf("%d %v", a.status, a.header)
		}
		if s := g.p.Set().Models["m"].Targets[0].Status(); s.Breaker != "open" {
			t.Errorf("after five failures of one request: %+v", s)
		}
	})
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, text, map[string]steps{"a": {status("404 Oh")}, "b": {upstreamtest.Stall("")}})
		g.trip("n")
		time.Sleep(time.Second)
		done := make(chan response)
		go func() { done <- g.post("/v1/chat/completions", `{"model":"m","stream":true}`) }()
		synctest.Wait()
		if s := g.p.Set().Models["n"].Targets[0].Status(); s.Breaker != "open" || s.InFlight != 1 {
			t.Errorf("while its probe is under way: %+v", s)
		}
		if s := g.p.Set().Models["m"].Targets[0].Status(); s.InFlight != 0 {
			t.Errorf("after its only attempt: %+v", s)
		}
		<-done
		if s := g.p.Set().Models["n"].Targets[0].Status(); s.Breaker != "open" || s.InFlight != 0 || s.ServesIn != 2 {
			t.Errorf("after its probe has failed: %+v", s)
		}
		g.wantNothingLeft()
	})
}

func TestOutcome(t *testing.T) {
	target := &pool.Target{Timeouts: config.Default().Timeouts.Timeouts}
	target.Timeouts.Response = target.Timeouts.Total
	for _, test := range []struct {
		a    attempt
		want pool.Outcome
	}{
		{attempt{status: 200}, pool.Served},
		{attempt{failed: true, cause: pool.ClientLeft}, pool.Unknown},
		{attempt{failed: true, cause: pool.ShuttingDown}, pool.Unknown},
		{attempt{failed: true, cause: pool.GatewayFailed, status: 200}, pool.Unknown},
		{attempt{failed: true, cause: pool.StatusRefused, status: 404}, pool.Refused},
		{attempt{failed: true, cause: pool.StatusRefused, status: 500}, pool.Failed},
		{attempt{failed: true, cause: pool.StatusRefused, status: 403}, pool.Unclear}, // a firewall's page
		{attempt{failed: true, cause: pool.Redirected, status: 307}, pool.Unclear},
		{attempt{failed: true, cause: pool.CredentialRefused, status: 401}, pool.CredentialDenied},
		{attempt{failed: true, cause: pool.CredentialRefused, status: 403}, pool.CredentialDenied},
		{attempt{failed: true, cause: pool.CredentialRefused, status: 402}, pool.Unclear},
		{attempt{failed: true, cause: pool.ErrorEvent, status: 200}, pool.Refused},
		{attempt{failed: true, cause: pool.ResponseTimeout, status: 503, took: time.Second}, pool.Failed},
		{attempt{failed: true, cause: pool.ResponseBroken, status: 200}, pool.Failed},
		{attempt{failed: true, cause: pool.StreamBroken, status: 200}, pool.Failed},
		{attempt{failed: true, cause: pool.ResponseTimeout, took: 10*time.Minute - time.Second}, pool.Failed}, // the body took the second
		{attempt{failed: true, cause: pool.ResponseTimeout, took: 5 * time.Minute}, pool.Unknown},
		{attempt{failed: true, cause: pool.FirstByteTimeout, took: time.Minute}, pool.Failed},
		{attempt{failed: true, cause: pool.FirstByteTimeout, took: time.Second}, pool.Unknown},
		{attempt{failed: true, cause: pool.ConnectTimeout, took: 2 * time.Second}, pool.Failed},
		{attempt{failed: true, cause: pool.ConnectTimeout, took: time.Second}, pool.Unknown},
	} {
		test.a.target = target
		if got := new(request).outcome(&test.a); got != test.want {
			t.Errorf("%v, %d, %v: %d, want %d", test.a.cause, test.a.status, test.a.took, got, test.want)
		}
	}
	// A total shorter than a first byte's time is all that a target can have.
	short := *target
	short.Timeouts.Total = config.Duration(10 * time.Second)
	if o := new(request).outcome(&attempt{target: &short, failed: true, cause: pool.FirstByteTimeout, took: 10 * time.Second}); o != pool.Failed {
		t.Errorf("%d", o)
	}
}

// TestProbeOfAStream closes the breaker with its first event, not with its last.
func TestProbeOfAStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		bad := status("500 Oh")
		long := step{Answer: func(conn net.Conn, r *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, upstreamtest.Events(chunkOne))
			time.Sleep(20 * time.Second)
			writeChunk(conn, chunkDone)
			_, _ = io.WriteString(conn, upstreamtest.LastChunk)
		}}
		g, _ := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}], max_retries: 0}\n", map[string]steps{"a": {bad, bad, bad, bad, bad, long, good}})
		for range 5 {
			g.post("/v1/chat/completions", plainM)
		}
		time.Sleep(time.Second)
		resp, err := g.open("POST", "/v1/chat/completions", streamM)
		if err != nil {
			t.Fatal(err)
		}
		g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0")
		if b, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(b), chunkDone) {
			t.Errorf("%s, %v", b, err)
		}
		resp.Body.Close()
		g.wantNothingLeft()
	})
}

// TestProbeThatTakesLong: others need not wait for its end, whatever it is.
func TestProbeThatTakesLong(t *testing.T) {
	slowly := func(head string, first time.Duration, piece string) step {
		return step{Answer: func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, head)
			time.Sleep(first)
			writeChunk(conn, piece)
			time.Sleep(20 * time.Second)
			writeChunk(conn, chunkDone)
			_, _ = io.WriteString(conn, upstreamtest.LastChunk)
		}}
	}
	for name, probe := range map[string]step{
		"a stream that went out on silence": slowly(upstreamtest.Events(), 20*time.Second, chunkOne),
		"a body that passes through":        slowly("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n", 0, "abc"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}], max_retries: 0}\n", map[string]steps{"a": {probe, good}})
				g.trip("m")
				time.Sleep(time.Second)
				resp, err := g.open("POST", "/v1/chat/completions", streamM)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				var got [100]byte
				for !strings.Contains(string(got[:]), "a") { // what comes before is keep-alives
					if _, err := resp.Body.Read(got[:1]); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(6 * time.Second)
				synctest.Wait()
				if name == "a stream that went out on silence" {
					time.Sleep(time.Second)
				}
				g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0")
				_, _ = io.Copy(io.Discard, resp.Body)
				g.wantNothingLeft()
			})
		})
	}
}

// TestWhatOpensABreaker and what does not: a client must not be able to have a target shut
// for others.
func TestWhatOpensABreaker(t *testing.T) {
	brokenStream := step{Answer: func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, upstreamtest.Events(chunkOne))
		conn.Close()
	}}
	for _, test := range []struct {
		name string
		step step
		body string
		open bool
	}{
		{"no connection", upstreamtest.Refuse(), plainM, true},
		{"no connection in time", upstreamtest.Blackhole(), plainM, true},
		{"not HTTP", upstreamtest.Say("x\r\n\r\n"), plainM, true},
		{"half an answer", upstreamtest.Break("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"), plainM, true},
		{"silence", upstreamtest.Stall(""), plainM, true},
		{"a silent stream", upstreamtest.Stall(""), streamM, true},
		{"a broken stream", brokenStream, streamM, true},
		{"501", status("501 Not Implemented"), plainM, true},
		{"529", status("529 Overloaded"), plainM, true},
		{"429", status("429 Too Many Requests"), plainM, false},
		{"408", status("408 Request Timeout"), plainM, false},
		{"404", status("404 Not Found"), plainM, false},
		{"400", status("400 Bad Request"), plainM, false},
		{"401", status("401 Unauthorized"), plainM, false},
		{"a redirect", status("307 Elsewhere"), plainM, false},
		{"an error event, which may be the request's own fault", upstreamtest.Say(upstreamtest.Events("event: error\ndata: {}\n\n") + upstreamtest.LastChunk), streamM, false},
		{"a deadline of the client's", upstreamtest.Stall(""), `{"model":"m","gateway":{"timeout":"5ms"}}`, false},
		{"a first-byte time-out of the client's", upstreamtest.Stall(""), `{"model":"m","stream":true,"gateway":{"first_byte_timeout":"5ms"}}`, false},
		{"a deadline of the client's, while connecting", upstreamtest.Blackhole(), `{"model":"m","gateway":{"timeout":"5ms"}}`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}], max_retries: 0}\n", map[string]steps{"a": {test.step}})
				for range 5 {
					g.post("/v1/chat/completions", test.body)
				}
				state := g.p.Set().Models["m"].Targets[0].Status().Breaker
				if open := state != "closed"; open != test.open {
					t.Errorf("the breaker is %s", state)
				}
				g.wantNothingLeft()
			})
		})
	}
}

// TestRetryBudget: past it a request goes straight to its error, or its fallback.
func TestRetryBudget(t *testing.T) {
	const text = threeUpstreams + `
  m: {targets: [{upstream: a}], max_retries: 3, fallbacks: [n]}
  n: {targets: [{upstream: b}]}
  alone: {targets: [{upstream: a}], max_retries: 3}
`
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, text, map[string]steps{"a": {status("429 Too Many Requests")}, "b": {good}})
		asked := 0
		for i := range 6 {
			g.post("/v1/chat/completions", plainM)
			tries := 4
			if i == 3 {
				tries = 2 // the tenth retry was the last
			} else if i > 3 {
				tries = 1
			}
			if asked += tries; hosts["a"].Asked() != asked {
				t.Fatalf("request %d: a was asked %d times, want %d", i, hosts["a"].Asked(), asked)
			}
		}
		took := timed(func() { g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;429;0,n@b;200;0") })
		a := g.post("/v1/chat/completions", `{"model":"alone"}`)
		a.want(t, 429, "alone@a;429;0")
		if took != 0 || !strings.Contains(a.body, "theirs") {
			t.Errorf("after %v: %s", took, a.body)
		}
		g.wantSeries(`sluice_retries_total{upstream="a"} 10`, `sluice_retries_refused_total{upstream="a"} 5`, `sluice_fallbacks_total{model="n"} 7`)
		time.Sleep(11 * time.Second)
		g.post("/v1/chat/completions", `{"model":"alone"}`)
		if n := hosts["a"].Asked() - asked; n != 2+4 {
			t.Errorf("after ten seconds a was asked %d times", n)
		}
	})
	inBubble(t, func(t *testing.T) {
		// A fifth of what is sent, the retries among it: of 100 and 25, 25.
		bad := status("429 Too Many Requests")
		script := append(make(steps, 0, 101), status("404 Not Found"))
		for range 99 {
			script = append(script, script[0])
		}
		g, hosts := startScripted(t, text, map[string]steps{"a": append(script, bad), "b": {good}})
		for range 100 {
			g.post("/v1/chat/completions", `{"model":"alone"}`)
		}
		for range 10 {
			g.post("/v1/chat/completions", `{"model":"alone"}`)
		}
		// Each sends one, and one in five may be a retry: r <= (100+10+r)/5.
		if n := hosts["a"].Asked() - 110; n < 25 || n > 27 {
			t.Errorf("%d retries of 110 requests", n)
		}
	})
	inBubble(t, func(t *testing.T) {
		// A first try on another target is no retry.
		g, _ := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a, weight: 1000000}, {upstream: b}], max_retries: 1}\n",
			map[string]steps{"a": {status("429 Too Many Requests")}, "b": {good}})
		for range 30 {
			g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;429;0,m@b;200;0")
		}
	})
}

// TestDeadlines: the total covers tries and waits, and the client's own are held.
func TestDeadlines(t *testing.T) {
	const text = threeUpstreams + `
  m: {targets: [{upstream: a}], max_retries: 9, fallbacks: [n], timeouts: {first_byte: 4s, response: 4s, total: 10s}}
  n: {targets: [{upstream: b}], timeouts: {total: 10s}}
  patient: {targets: [{upstream: a}], max_retries: 0, timeouts: {first_byte: 4s, total: 10s}}
`
	for _, test := range []struct {
		name, body  string
		least, most time.Duration
		attempts    string
	}{
		{"a stream's tries", streamM, 10 * time.Second, 10 * time.Second, "3"}, // 4 s, 4 s, what is left
		{"a plain request's fallback", plainM, 10 * time.Second, 10 * time.Second, "2"},
		{"lowered", `{"model":"m","stream":true,"gateway":{"timeout":"5s"}}`, 5 * time.Second, 5 * time.Second, "2"},
		{"raised, in vain", `{"model":"m","stream":true,"gateway":{"timeout":"50s"}}`, 10 * time.Second, 10 * time.Second, "3"},
		{"the first byte lowered", `{"model":"patient","gateway":{"first_byte_timeout":"1500ms"}}`, 1500 * time.Millisecond, 1500 * time.Millisecond, "1"},
		{"the first byte raised, in vain", `{"model":"patient","stream":true,"gateway":{"first_byte_timeout":"50s"}}`, 4 * time.Second, 4 * time.Second, "1"},
		{"at once", `{"model":"m","gateway":{"timeout":"1ns"}}`, 0, time.Nanosecond, "1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, text, map[string]steps{"a": {upstreamtest.Stall("")}, "b": {upstreamtest.Stall("")}})
				var a response
				took := timed(func() { a = g.post("/v1/chat/completions", test.body) })
				says := "upstream "
				if test.attempts != "1" {
					says = "all " + test.attempts + " attempts failed, the last so: upstream "
				}
				errorRow{504, "upstream_error", "", "upstream_timeout", says}.check(t, a)
				if took < test.least || took > test.most || a.header.Get("X-Sluice-Attempts") != test.attempts {
					t.Errorf("%s attempts in %v: %s", a.header.Get("X-Sluice-Attempts"), took, a.header.Get("X-Sluice-Trail"))
				}
				g.wantNothingLeft()
			})
		})
	}
}

// TestMaxRetries: the model's own, the default, and the client's where it is lower; never more
// than 32 attempts.
func TestMaxRetries(t *testing.T) {
	const text = threeUpstreams + `
  m: {targets: [{upstream: a}]}
  four: {targets: [{upstream: a}], max_retries: 4}
  many: {targets: [{upstream: a}, {upstream: b}, {upstream: c}], max_retries: 31}
`
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, text, map[string]steps{"a": {status("429 Too Many Requests")}})
		g.post("/v1/chat/completions", `{"gateway":{"models":["four","m"]}}`)
		g.wantSeries(`sluice_fallbacks_total{model="m"} 1`) // although it was tried three times
	})
	for body, asked := range map[string]int{
		plainM:             3,
		`{"model":"four"}`: 5,
		`{"model":"four","gateway":{"max_retries":1}}`:  2,
		`{"model":"four","gateway":{"max_retries":0}}`:  1,
		`{"model":"four","gateway":{"max_retries":50}}`: 5,
		`{"gateway":{"models":["many","m"]}}`:           32,
	} {
		inBubble(t, func(t *testing.T) {
			bad := status("429 Too Many Requests")
			g, hosts := startScripted(t, text+"breaker: {failures: 1000}\n", map[string]steps{"a": {bad}, "b": {bad}, "c": {bad}})
			a := g.post("/v1/chat/completions", body)
			if n := hosts["a"].Asked() + hosts["b"].Asked() + hosts["c"].Asked(); n != asked || a.header.Get("X-Sluice-Attempts") != fmt.Sprint(asked) {
				t.Errorf("%s: asked %d times, want %d; %s", body, n, asked, a.header.Get("X-Sluice-Trail"))
			}
		})
	}
}

// TestSequences: which models are tried, and in what order.
func TestSequences(t *testing.T) {
	const text = threeUpstreams + `
  m: {targets: [{upstream: a}], max_retries: 0, fallbacks: [n, o]}
  n: {targets: [{upstream: b}], max_retries: 0, fallbacks: [p]}
  o: {targets: [{upstream: c}], max_retries: 0}
  p: {targets: [{upstream: c}], max_retries: 0}
`
	for _, test := range []struct {
		name, body string
		trail      string
		status     int
	}{
		{"the model's fallbacks, and theirs", plainM, "m@a;404;0,n@b;404;0,p@c;404;0,o@c;404;0", 404},
		{"the client's in their place", `{"model":"m","gateway":{"models":["m","o"]}}`, "m@a;404;0,o@c;404;0", 404},
		{"the body's model first", `{"model":"m","gateway":{"models":["o"]}}`, "m@a;404;0,o@c;404;0", 404},
		{"the body's model in its place", `{"model":"m","gateway":{"models":["o","m"]}}`, "o@c;404;0,m@a;404;0", 404},
		{"no model in the body", `{"gateway":{"models":["o","n"]}}`, "o@c;404;0,n@b;404;0", 404},
		{"alone", `{"gateway":{"models":["m"]}}`, "m@a;404;0", 404},
		{"twice the same", `{"gateway":{"models":["m","o","m"]}}`, "m@a;404;0,o@c;404;0", 404},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				bad := status("404 Not Found")
				g, _ := startScripted(t, text, map[string]steps{"a": {bad}, "b": {bad}, "c": {bad}})
				g.post("/v1/chat/completions", test.body).want(t, test.status, test.trail)
			})
		})
	}
	t.Run("models of the key alone", func(t *testing.T) {
		bad := status("404 Not Found")
		g, hosts := startScripted(t, text, map[string]steps{"a": {bad}, "b": {bad}, "c": {bad}})
		_, g.secret = g.key(keys.Spec{Name: "some", Models: []string{"m", "o"}})
		for body, row := range map[string]errorRow{
			`{"model":"m","gateway":{"models":["m","n"]}}`:     {403, "permission_error", "model", "model_not_allowed", "n"},
			`{"model":"m","gateway":{"models":["m","typo"]}}`:  {404, "invalid_request_error", "model", "model_not_found", "typo"},
			`{"model":"n","gateway":{"models":["m"]}}`:         {403, "permission_error", "model", "model_not_allowed", "n"},
			`{"gateway":{"models":["o","m","o","m","o","p"]}}`: {403, "permission_error", "model", "model_not_allowed", "p"},
		} {
			row.check(t, g.post("/v1/chat/completions", body))
		}
		if n := hosts["a"].Asked() + hosts["c"].Asked(); n != 0 {
			t.Errorf("%d requests were sent for refused sequences", n)
		}
		a := g.post("/v1/chat/completions", plainM)
		if trail := a.header.Get("X-Sluice-Trail"); !strings.HasPrefix(trail, "m@a;404;") || !strings.Contains(trail, ",o@c;404;") || strings.Contains(trail, "n@b") {
			t.Errorf("a configured fallback that the key may not use: %s", trail)
		}
	})
}

// TestLastErrorIsKept: the last attempt's own HTTP error is the answer, also where the gateway
// finds out only after it that nothing else can be tried.
func TestLastErrorIsKept(t *testing.T) {
	const text = "breaker: {pause: 30s}" + threeUpstreams + `
  m: {targets: [{upstream: a}], fallbacks: [n], max_retries: 1, timeouts: {total: 5s}}
  n: {targets: [{upstream: b}]}
`
	shut := status("500 Oh")
	prepare := func(t *testing.T, last step) (*gateway, upstreamtest.Hosts) {
		g, hosts := startScripted(t, text, map[string]steps{"a": {last}, "b": {shut}})
		g.trip("n")
		return g, hosts
	}
	const foreign429 = `{"gateway":{"model":"m","upstream":"a","attempts":1},"error":{"message":` +
		`"upstream a answered POST /chat/completions with status 429 and without an error in JSON","type":"upstream_error","param":null,"code":"upstream_error"}}`
	big := strings.Repeat("x", keepBuffer)
	for _, test := range []struct {
		name   string
		step   step
		status int
		trail  string
		body   string
	}{
		{"with its headers", status("429 Slow", "Retry-After: 60", "X-Theirs: yes"), 429, "m@a;429;0", "{" + saidBy("m", "a", 1) + "," + errorBody[1:]},
		{"not JSON", upstreamtest.Say(upstreamtest.Whole("429 Slow", "text/html", "Retry-After: 60\r\nX-Theirs: yes\r\n", "<p>slow</p>")), 429, "m@a;429;0", foreign429},
		{"without a body", upstreamtest.Say("HTTP/1.1 429 Slow\r\nRetry-After: 60\r\nX-Theirs: yes\r\nContent-Length: 0\r\n\r\n"), 429, "m@a;429;0", foreign429},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := prepare(t, test.step)
				a := g.post("/v1/chat/completions", plainM)
				a.want(t, test.status, test.trail)
				if a.body != test.body || a.header.Get("X-Theirs") != "yes" || a.header.Get("Retry-After") != "60" {
					t.Errorf("%v %s", a.header, a.body)
				}
				g.wantNothingLeft()
			})
		})
	}
	t.Run("until the end of the connection", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			g, _ := prepare(t, upstreamtest.Break("HTTP/1.0 429 Slow\r\nContent-Type: text/plain\r\nRetry-After: 60\r\n\r\nslow down"))
			a := g.post("/v1/chat/completions", plainM)
			a.want(t, 429, "m@a;429;0")
			if a.body != foreign429 || a.header.Get("Retry-After") != "60" {
				t.Errorf("%v %s", a.header, a.body)
			}
		})
	})
	t.Run("for which nothing else is possible, and slow", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			g, _ := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}], max_retries: 0}\n", map[string]steps{"a": {
				upstreamtest.Stall("HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{")}})
			took := timed(func() { g.post("/v1/chat/completions", plainM).want(t, 504, "m@a;response_timeout;10000") })
			if s := g.p.Set().Upstreams[0].Status(); took != errorTime || s.Failures != 1 {
				t.Errorf("%v, %d failures", took, s.Failures)
			}
		})
	})
	for name, step := range map[string]step{
		"too long to keep": upstreamtest.Say(upstreamtest.Whole("429 Slow", "text/html", "Retry-After: 60\r\n", big)),
		"broken":           upstreamtest.Break("HTTP/1.1 429 Slow\r\nRetry-After: 60\r\nContent-Length: 9\r\n\r\nx"),
		"too slow":         upstreamtest.Stall("HTTP/1.1 429 Slow\r\nRetry-After: 60\r\nContent-Length: 9\r\n\r\nx"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := prepare(t, step)
				var a response
				took := timed(func() { a = g.post("/v1/chat/completions", plainM) })
				a.want(t, 502, "m@a;429;0")
				errorRow{502, "upstream_error", "", "upstream_error", "an error status"}.check(t, a)
				if took > holdTime {
					t.Errorf("it took %v", took)
				}
				g.wantNothingLeft()
			})
		})
	}
	t.Run("after a wait", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			g, hosts := prepare(t, status("503 Wait", "Retry-After: 3"))
			done := make(chan response)
			go func() { done <- g.post("/v1/chat/completions", plainM) }()
			time.Sleep(time.Second)
			g.trip("m") // while the request waits
			(<-done).want(t, 503, "m@a;503;0")
			if hosts["a"].Asked() != 1 {
				t.Errorf("asked %d times", hosts["a"].Asked())
			}
			g.wantNothingLeft()
		})
	})
}

// TestKeepAlivesWaitForTheLastAttempt: while another attempt may follow, nothing is sent.
func TestKeepAlivesWaitForTheLastAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const text = threeUpstreams + "  m: {targets: [{upstream: a}], max_retries: 1, timeouts: {first_byte: 10s, stream_keepalive: 3s}}\n"
		late := step{Answer: func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, upstreamtest.Events())
			time.Sleep(7 * time.Second)
			writeChunk(conn, chunkOne)
			writeChunk(conn, chunkDone)
			_, _ = io.WriteString(conn, upstreamtest.LastChunk)
		}}
		g, _ := startScripted(t, text, map[string]steps{"a": {upstreamtest.Stall(upstreamtest.Events()), late}})
		a := g.post("/v1/chat/completions", streamM)
		m := saidBy("m", "a", 2, `{"model":"m","upstream":"a","status":200,"error":"first_byte_timeout"}`)
		if want := sse.KeepAlive + sse.KeepAlive + strings.Replace(chunkOne, "{", "{"+m+",", 1) + chunkDone; a.status != 200 || a.body != want {
			t.Errorf("%d %s\nwant %s", a.status, a.body, want)
		}
		g.wantNothingLeft()
	})
}

// TestNothingIsRetriedAfterTheFirstEvent, however much else could be tried.
func TestNothingIsRetriedAfterTheFirstEvent(t *testing.T) {
	for name, s := range map[string]step{
		"broken": {Answer: func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, upstreamtest.Events(chunkOne))
			conn.Close()
		}},
		"stalled": upstreamtest.Stall(upstreamtest.Events(chunkOne)),
		"ended":   upstreamtest.Say(upstreamtest.Events(chunkOne) + upstreamtest.LastChunk),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, hosts := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}, {upstream: a, model: other}], fallbacks: [n]}\n  n: {targets: [{upstream: b}]}\n",
					map[string]steps{"a": {s, good}, "b": {good}})
				a := g.post("/v1/chat/completions", streamM)
				if a.status != 200 || !strings.Contains(a.body, "upstream_stream_broken") || strings.Contains(a.body, "[DONE]") {
					t.Errorf("%d %s", a.status, a.body)
				}
				if n := hosts["a"].Asked() + hosts["b"].Asked(); n != 1 {
					t.Errorf("%d requests were sent", n)
				}
				g.wantNothingLeft()
			})
		})
	}
}

// TestClientThatLeavesBetweenAttempts: however short each of them is, and whatever is waited
// for, none follows.
func TestClientThatLeavesBetweenAttempts(t *testing.T) {
	const text = `
admin: {token: 0123456789abcdef}
retry: {max_retries: 9, base: 1ms, max: 1ms}
breaker: {failures: 1000}
upstreams: {up: {base_url: "http://UP/base"}}
models: {m: {targets: [{upstream: up}]}}
`
	for name, answer := range map[string]func(net.Conn, *upstreamtest.Recorded){
		"short attempts": func(conn net.Conn, _ *upstreamtest.Recorded) {
			time.Sleep(200 * time.Millisecond)
			_, _ = io.WriteString(conn, upstreamtest.Whole("500 Oh", "application/json", "", errorBody))
		},
		"an error's body": func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, "HTTP/1.1 500 Oh\r\nContent-Length: 50\r\n\r\n{")
			_, _ = io.Copy(io.Discard, conn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.NewRaw(t, answer)
			g := startTCP(t, text, up.Address())
			conn := g.begin(plainM)
			eventually(t, "the upstream has the request", func() bool { return len(up.Requests()) == 1 })
			conn.Close()
			eventually(t, "the request is over", func() bool { return g.p.gate.InFlight() == 0 })
			if n := len(up.Requests()); n > 4 { // 500 ms of 200 ms each
				t.Errorf("%d requests went upstream", n)
			}
			if !strings.Contains(g.log.String(), "client_left") && testutil.ToFloat64(g.m.CancelledUpstreams) != 1 {
				t.Errorf("%v upstream requests are counted as cancelled", testutil.ToFloat64(g.m.CancelledUpstreams))
			}
		})
	}
}

// TestEndOfAWait: whoever waits for its next try, and has left or is to end, does not wait on.
func TestEndOfAWait(t *testing.T) {
	wait := upstreamtest.Reply(upstreamtest.Whole("503 Wait", "application/json", "Retry-After: 60\r\n", errorBody))
	begin := func(t *testing.T) (*gateway, net.Conn) {
		up := upstreamtest.NewRaw(t, wait)
		g := startTCP(t, strings.Replace(oneModel, "max_retries: 0", "max_retries: 3", 1), up.Address())
		conn := g.begin(plainM)
		u := g.p.Set().Upstreams[0]
		eventually(t, "the request waits", func() bool { s := u.Status(); return len(up.Requests()) == 1 && s.InFlight == 0 && s.Failures == 1 })
		return g, conn
	}
	t.Run("the client leaves", func(t *testing.T) {
		g, conn := begin(t)
		conn.Close()
		eventually(t, "the request is over", func() bool { return g.p.gate.InFlight() == 0 })
		if n := testutil.ToFloat64(g.m.CancelledUpstreams); n != 0 {
			t.Errorf("%v upstream requests were cancelled; none was under way", n)
		}
	})
	t.Run("the process ends", func(t *testing.T) {
		g, conn := begin(t)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		g.p.Shutdown(ctx, 0)
		b, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 503 ") || !strings.Contains(string(b), "shutting_down") {
			t.Errorf("%q, %v", b, err)
		}
	})
}

// TestPlacesAndCharges: a request that can be sent nowhere costs its key nothing, and one
// that its key does not admit takes nobody's place.
func TestPlacesAndCharges(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}]}\n", map[string]steps{"a": {good}})
		one, period := int64(1), keys.Period(time.Minute)
		_, poor := g.key(keys.Spec{Name: "one a minute", Limits: keys.Limits{Requests: &one, Period: &period}})
		rich := g.secret
		g.trip("m")
		g.secret = poor
		a := g.post("/v1/chat/completions", plainM)
		errorRow{503, "overloaded_error", "", "no_healthy_upstream", ""}.check(t, a)
		if left := a.header.Get("X-Ratelimit-Remaining-Requests"); left != "1" {
			t.Errorf("%s requests are left", left)
		}
		time.Sleep(time.Second)
		g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0")
		g.trip("m")
		time.Sleep(time.Second)
		if a := g.post("/v1/chat/completions", plainM); a.status != 429 || a.header.Get("X-Sluice-Attempts") != "0" || hosts["a"].Asked() != 1 {
			t.Errorf("%d %v", a.status, a.header)
		}
		g.secret = rich
		g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0") // the probe was still to be had
		g.wantNothingLeft()
	})
}
