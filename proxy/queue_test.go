package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/keys"
)

// slow answers rightly after d.
func slow(d time.Duration) step {
	return step{Answer: func(conn net.Conn, _ *upstreamtest.Recorded) {
		time.Sleep(d)
		_, _ = io.WriteString(conn, okReply)
	}}
}

// full is a configuration with an upstream a that takes one request at a time.
const full = `
admin: {token: 0123456789abcdef}
upstreams: {a: {base_url: "http://a/v1", max_in_flight: 1, queue_timeout: 10s}, b: {base_url: "http://b/v1"}}
models:
`

// busy has n requests of the key with secret under way, which began one after the other.
func (g *gateway) busy(wg *sync.WaitGroup, n int, secret string, done func(i int, a response)) {
	for i := range n {
		wg.Go(func() {
			done(i, g.post("/v1/chat/completions", plainM, "Authorization", "Bearer "+secret))
		})
		synctest.Wait()
	}
}

func right(t *testing.T) func(int, response) {
	return func(_ int, a response) {
		if a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

// TestFullUpstreamIsPassedOver for another target, and for a fallback, at once.
func TestFullUpstreamIsPassedOver(t *testing.T) {
	for name, models := range map[string]string{
		"target":   "  m: {targets: [{upstream: a, weight: 1000}, {upstream: b}]}\n",
		"fallback": "  m: {targets: [{upstream: a}], fallbacks: [n]}\n  n: {targets: [{upstream: b}]}\n",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, hosts := startScripted(t, full+models, map[string]steps{"a": {slow(time.Minute)}, "b": {slow(0)}})
				var wg sync.WaitGroup
				for hosts["a"].Asked() == 0 { // the weight sends it there, sooner or later
					g.busy(&wg, 1, g.secret, right(t))
				}
				took := timed(func() {
					if a := g.post("/v1/chat/completions", plainM); a.status != 200 || !strings.HasSuffix(a.header.Get("X-Sluice-Trail"), "@b;200;0") {
						t.Errorf("%d, trail %q", a.status, a.header.Get("X-Sluice-Trail"))
					}
				})
				if took != 0 {
					t.Errorf("it waited for %v", took)
				}
				wg.Wait()
				g.wantNothingLeft()
			})
		})
	}
}

// TestRetriesPassAFullUpstreamOver rather than wait for it again.
func TestRetriesPassAFullUpstreamOver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, "retry: {base: 1ms, max: 1ms}\n"+full+"  m: {targets: [{upstream: b}], fallbacks: [n]}\n  n: {targets: [{upstream: a}]}\n",
			map[string]steps{"a": {slow(time.Minute)}, "b": {status("500 No"), status("500 No"), status("500 No"), slow(0)}})
		var wg sync.WaitGroup
		wg.Go(func() { g.post("/v1/chat/completions", `{"model":"n"}`) })
		synctest.Wait()
		a := g.post("/v1/chat/completions", plainM)
		if a.status != 500 || strings.Contains(a.header.Get("X-Sluice-Trail"), "@a") {
			t.Errorf("%d, trail %q", a.status, a.header.Get("X-Sluice-Trail"))
		}
		wg.Wait()
		g.wantNothingLeft()
	})
}

// TestTurns: those who wait are served one after the other, each key's first before any
// key's second.
func TestTurns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, full+"  m: {targets: [{upstream: a}]}\n", map[string]steps{"a": {slow(100 * time.Millisecond)}})
		_, other := g.key(keys.Spec{Name: "other"})
		var wg sync.WaitGroup
		var mu sync.Mutex
		var order []string
		note := func(who string) func(int, response) {
			return func(i int, a response) {
				right(t)(i, a)
				mu.Lock()
				defer mu.Unlock()
				order = append(order, fmt.Sprint(who, i))
			}
		}
		g.busy(&wg, 5, g.secret, note("greedy"))
		g.busy(&wg, 2, other, note("other"))
		if u := g.p.Set().Upstreams[0].Status(); u.Waiting != 6 || u.Places != 1 || u.MaxInFlight != 1 {
			t.Errorf("%+v", u)
		}
		wg.Wait()
		if got := strings.Join(order, " "); got != "greedy0 greedy1 other0 greedy2 other1 greedy3 greedy4" {
			t.Error(got)
		}
		g.wantNothingLeft()
	})
}

// TestTurnThatDoesNotCome: 503 after queue_timeout, and the key's window is not charged.
func TestTurnThatDoesNotCome(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, full+"  m: {targets: [{upstream: a}]}\n", map[string]steps{"a": {slow(time.Minute)}})
		ten := int64(10)
		_, secret := g.key(keys.Spec{Name: "counted", Limits: keys.Limits{Requests: &ten}})
		var wg sync.WaitGroup
		g.busy(&wg, 1, secret, right(t))
		var a response
		if took := timed(func() { a = g.post("/v1/chat/completions", plainM, "Authorization", "Bearer "+secret) }); took != 10*time.Second {
			t.Errorf("after %v", took)
		}
		errorRow{503, "overloaded_error", "", "overloaded", "max_in_flight"}.check(t, a)
		if a.header.Get("Retry-After") != "1" || a.header.Get("X-Ratelimit-Remaining-Requests") != "9" || a.header.Get("X-Sluice-Attempts") != "0" {
			t.Errorf("%v", a.header)
		}
		// The client's own deadline is held, too.
		if took := timed(func() { a = g.post("/v1/chat/completions", `{"model":"m","gateway":{"timeout":"2s"}}`) }); took != 2*time.Second || a.status != 503 {
			t.Errorf("%d after %v", a.status, took)
		}
		wg.Wait()
		g.wantNothingLeft()
	})
}

// TestHopelessWaitIsRefusedAtOnce: at the rate of the last ten seconds the turn would not come in
// time, and Retry-After says when it would.
func TestHopelessWaitIsRefusedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		text := strings.Replace(full, "queue_timeout: 10s", "queue_timeout: 3500ms", 1)
		g, _ := startScripted(t, text+"  m: {targets: [{upstream: a}]}\n", map[string]steps{"a": {slow(time.Second)}})
		var wg sync.WaitGroup
		for range 10 { // one a second
			g.post("/v1/chat/completions", plainM)
		}
		g.busy(&wg, 4, g.secret, right(t))
		var a response
		if took := timed(func() { a = g.post("/v1/chat/completions", plainM) }); took != 0 || a.status != 503 {
			t.Errorf("%d after %v", a.status, took)
		}
		if after := a.header.Get("Retry-After"); after != "4" && after != "5" {
			t.Errorf("Retry-After: %s with three before it, at one a second", after)
		}
		wg.Wait()
		g.wantNothingLeft()
	})
}

// TestQueueIsBounded, and the greedy key makes room for another's first.
func TestQueueIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, full+"  m: {targets: [{upstream: a}]}\n", map[string]steps{"a": {slow(time.Second), slow(0)}})
		_, other := g.key(keys.Spec{Name: "other"})
		var wg sync.WaitGroup
		statuses := map[int]int{}
		var mu sync.Mutex
		count := func(_ int, a response) {
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		}
		g.busy(&wg, 1+16+4, g.secret, count) // four find sixteen waiting
		g.busy(&wg, 1, other, right(t))      // for which one more has to go
		wg.Wait()
		if statuses[200] != 16 || statuses[503] != 5 {
			t.Errorf("%v", statuses)
		}
		g.wantNothingLeft()
	})
}

// TestClientThatLeavesTheQueue makes room for the next.
func TestClientThatLeavesTheQueue(t *testing.T) {
	release := make(chan struct{})
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		<-release
		_, _ = io.WriteString(conn, okReply)
	})
	g := startTCP(t, strings.Replace(oneModel, "up: {", "up: {max_in_flight: 1, queue_timeout: 1h, ", 1), up.Address())
	waiting := func(n int64) func() bool {
		return func() bool { return g.p.Set().Upstreams[0].Status().Waiting == n }
	}
	var wg sync.WaitGroup
	wg.Go(func() { right(t)(0, g.post("/v1/chat/completions", plainM)) })
	eventually(t, "the upstream is asked", func() bool { return len(up.Requests()) == 1 })
	leaves := g.begin(plainM)
	eventually(t, "one waits", waiting(1))
	wg.Go(func() { right(t)(1, g.post("/v1/chat/completions", plainM)) })
	eventually(t, "another waits", waiting(2))
	leaves.Close()
	eventually(t, "the first of them has gone", waiting(1))
	close(release)
	wg.Wait()
	if n := len(up.Requests()); n != 2 {
		t.Errorf("the upstream was asked %d times", n)
	}
	eventually(t, "no place is taken", func() bool { return g.p.Set().Upstreams[0].Status().Places == 0 })
}

// TestReloadLetsMoreIn: max_in_flight follows the configuration while requests wait.
func TestReloadLetsMoreIn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		text := full + "  m: {targets: [{upstream: a}]}\n"
		g, _ := startScripted(t, text, map[string]steps{"a": {slow(time.Second)}})
		var wg sync.WaitGroup
		g.busy(&wg, 4, g.secret, right(t))
		took := timed(func() {
			if err := g.p.Apply(load(t, strings.Replace(text, "max_in_flight: 1", "max_in_flight: 4", 1), "")); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
		})
		if took != time.Second {
			t.Errorf("after the reload four took %v", took)
		}
		g.wantNothingLeft()
	})
}

// TestWhoWaitsLooksAround: another target, or a fallback, that becomes free first is taken.
func TestWhoWaitsLooksAround(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		text := strings.Replace(full, `b: {base_url: "http://b/v1"}`, `b: {base_url: "http://b/v1", max_in_flight: 1}`, 1)
		g, _ := startScripted(t, text+"  m: {targets: [{upstream: a}], fallbacks: [n]}\n  n: {targets: [{upstream: b}]}\n",
			map[string]steps{"a": {slow(time.Minute)}, "b": {slow(500 * time.Millisecond)}})
		var wg sync.WaitGroup
		g.busy(&wg, 2, g.secret, right(t)) // one at each
		var a response
		took := timed(func() { a = g.post("/v1/chat/completions", plainM) })
		if a.status != 200 || a.header.Get("X-Sluice-Upstream") != "b" || took < time.Second || took > 1100*time.Millisecond {
			t.Errorf("%d by %s after %v", a.status, a.header.Get("X-Sluice-Upstream"), took)
		}
		wg.Wait()
		g.wantNothingLeft()
	})
}

// TestShortWaitIsNotHopeless: how seldom requests come does not say how long a place is taken.
func TestShortWaitIsNotHopeless(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, strings.Replace(full, "10s", "500ms", 1)+"  m: {targets: [{upstream: a}]}\n", map[string]steps{"a": {slow(100 * time.Millisecond)}})
		g.post("/v1/chat/completions", plainM)
		time.Sleep(5 * time.Second)
		var wg sync.WaitGroup
		g.busy(&wg, 4, g.secret, right(t))
		wg.Wait()
		g.wantNothingLeft()
	})
}

// TestWhoIsOverItsLimitsDoesNotWait, and does not change what others are told.
func TestWhoIsOverItsLimitsDoesNotWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		text := strings.Replace(full, "queue_timeout: 10s", "queue_timeout: 3500ms", 1)
		g, _ := startScripted(t, text+"  m: {targets: [{upstream: a}]}\n", map[string]steps{"a": {slow(time.Second)}})
		one, some := int64(1), int64(10)
		_, requests := g.key(keys.Spec{Name: "requests", Limits: keys.Limits{Requests: &one}})
		_, tokens := g.key(keys.Spec{Name: "tokens", Limits: keys.Limits{Tokens: &some}})
		for _, secret := range []string{requests, tokens} {
			if a := g.post("/v1/chat/completions", plainM, "Authorization", "Bearer "+secret); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		for range 200 { // refused with a free place
			g.post("/v1/chat/completions", plainM, "Authorization", "Bearer "+requests)
		}
		var wg sync.WaitGroup
		g.busy(&wg, 4, g.secret, right(t))
		for limit, secret := range map[string]string{"limits.requests": requests, "limits.tokens": tokens} {
			var a response
			if took := timed(func() {
				a = g.post("/v1/chat/completions", `{"model":"m","max_tokens":10}`, "Authorization", "Bearer "+secret)
			}); took != 0 {
				t.Errorf("refused for %s after %v", limit, took)
			}
			errorRow{429, "rate_limit_error", "", "rate_limit_exceeded", limit}.check(t, a)
		}
		if took := timed(func() { g.post("/v1/chat/completions", plainM) }); took != 0 {
			t.Errorf("the fifth waited for %v", took)
		}
		wg.Wait()
		g.wantNothingLeft()
	})
}
