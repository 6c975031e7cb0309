package proxy

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// twoTargets is a model whose first target is the one to be asked first.
const twoTargets = "timeouts: {first_byte: 10s, response: 20s, total: 60s}\n" + threeUpstreams + "  m: {targets: [{upstream: a, weight: 1000000}, {upstream: b}], max_retries: RETRIES}\n"

func withRetries(n int) string { return strings.Replace(twoTargets, "RETRIES", fmt.Sprint(n), 1) }

// TestAnotherTargetAtOnce: what is a target's own trouble, and cannot be mended by asking it again,
// is met by the model's other target, without a retry and without a wait.
func TestAnotherTargetAtOnce(t *testing.T) {
	for _, f := range faults() {
		if f.secure {
			continue
		}
		for body, e := range map[string]end{plainM: f.plain, streamM: f.stream} {
			t.Run(f.name+", "+body, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					moves := !e.retried && !e.stays && e.cause != "response_timeout"
					g, hosts := startScripted(t, withRetries(0), map[string]steps{"a": {f.step}, "b": {good}})
					var a response
					took := timed(func() { a = g.post("/v1/chat/completions", body) })
					trail := fmt.Sprintf("m@a;%s;%d", e.shown(), e.takes.Milliseconds())
					if moves {
						a.want(t, 200, trail+",m@b;200;0")
						if !strings.Contains(a.body, saidBy("m", "b", 2, e.failedEntry("m", "a"))) {
							t.Error(a.body)
						}
					} else if got := a.header.Get("X-Sluice-Trail"); got != trail || hosts["b"].Asked() != 0 {
						t.Errorf("trail %q, want %q", got, trail)
					}
					if took != e.takes {
						t.Errorf("it took %v, want %v", took, e.takes)
					}
					g.wantNothingLeft()
				})
			})
		}
	}
}

// TestTargetsThatAreLeft: which targets a request asks, and what it answers with when all have
// refused it.
func TestTargetsThatAreLeft(t *testing.T) {
	const fallback = "  n: {targets: [{upstream: c}], max_retries: 0}\n"
	dead, gone, busy, wrong := status("401 Unauthorized"), status("404 Not Found"), status("503 Busy"), status("400 Bad Request")
	for _, test := range []struct {
		name, text, body string
		a, b             steps
		status           int
		asked            string // model@upstream;status, in order
	}{
		{"all refuse the credential", withRetries(2), plainM, steps{dead}, steps{dead}, 502, "m@a;401 m@b;401"},
		{"all know no such model", withRetries(2), plainM, steps{gone}, steps{gone}, 404, "m@a;404 m@b;404"},
		{"the last one's answer counts", withRetries(2), plainM, steps{dead}, steps{gone}, 404, "m@a;401 m@b;404"},
		{"the last one's answer counts, the other way about", withRetries(2), plainM, steps{gone}, steps{dead}, 502, "m@a;404 m@b;401"},
		{"the request's own fault ends it", withRetries(2), plainM, steps{gone, good}, steps{wrong}, 400, "m@a;404 m@b;400"},
		{"it is not asked again", withRetries(2), plainM, steps{dead, good}, steps{busy, busy, busy, good}, 503, "m@a;401 m@b;503 m@b;503 m@b;503"},
		{"the other may do better the next time", withRetries(2), plainM, steps{busy, good}, steps{dead}, 200, "m@a;503 m@b;401 m@a;200"},
		{"no retry is left for that", withRetries(1), plainM, steps{busy, good}, steps{dead}, 502, "m@a;503 m@b;401"},
		{"then the fallback", strings.Replace(withRetries(0), "max_retries", "fallbacks: [n], max_retries", 1) + fallback, plainM, steps{dead}, steps{gone}, 200, "m@a;401 m@b;404 n@c;200"},
		{"then the client's next model", withRetries(0) + fallback, `{"gateway":{"models":["m","n"]}}`, steps{gone}, steps{wrong}, 200, "m@a;404 m@b;400 n@c;200"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, test.text, map[string]steps{"a": test.a, "b": test.b, "c": {good}})
				a := g.post("/v1/chat/completions", test.body)
				var asked []string
				for _, part := range strings.Split(a.header.Get("X-Sluice-Trail"), ",") {
					asked = append(asked, part[:strings.LastIndexByte(part, ';')])
				}
				if got := strings.Join(asked, " "); got != test.asked || a.status != test.status {
					t.Errorf("%d, %s; want %d, %s", a.status, got, test.status, test.asked)
				}
				if a.status == 502 {
					errorRow{502, "upstream_error", "", "upstream_error", "credential"}.check(t, a)
				}
				g.wantNothingLeft()
			})
		})
	}
}

// TestPairWithADeadKey: no request fails, none of it counts as a retry, and the target that refuses
// is asked no more than the rest for that allows.
func TestPairWithADeadKey(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a}, {upstream: b}], max_retries: 0}\n",
			map[string]steps{"a": {status("401 Unauthorized")}, "b": {good}})
		for i := range 200 {
			body := plainM
			if i%2 == 1 {
				body = streamM
			}
			if a := g.post("/v1/chat/completions", body); a.status != 200 {
				t.Fatalf("request %d: %d %s", i, a.status, a.body)
			}
		}
		if s := g.p.Set().Upstreams[1].Status(); s.Retries != 0 || s.Failures != 0 || hosts["a"].Asked() != 3 {
			t.Errorf("%d retries and %d failures of the target that serves; the other was asked %d times", s.Retries, s.Failures, hosts["a"].Asked())
		}
		if s := g.p.Set().Models["m"].Targets[0].Status(); !s.CredentialRefused || s.Breaker != "closed" || s.ServesIn != 30 {
			t.Errorf("%+v", s)
		}
		g.wantSeries(`sluice_target_credential_refused{model="m",target="m",upstream="a"} 1`, `sluice_target_credential_refused{model="m",target="m",upstream="b"} 0`)
		g.wantNothingLeft()
	})
}

// TestAllRefuseTheCredential: the client is told so without an attempt, one request is the probe, and
// a reload with another key is tried at once.
func TestAllRefuseTheCredential(t *testing.T) {
	const text = threeUpstreams + "  m: {targets: [{upstream: a}], max_retries: 0}\n"
	inBubble(t, func(t *testing.T) {
		dead := status("403 Forbidden")
		g, hosts := startScripted(t, text, map[string]steps{"a": {dead, dead, dead, dead, dead, dead, dead, good}})
		shut := func(retryAfter string, asked int) {
			t.Helper()
			a := g.post("/v1/chat/completions", plainM)
			errorRow{503, "overloaded_error", "", "no_healthy_upstream", "the gateway's credential was refused"}.check(t, a)
			if a.header.Get("Retry-After") != retryAfter || hosts["a"].Asked() != asked {
				t.Errorf("Retry-After %s, asked %d times", a.header.Get("Retry-After"), hosts["a"].Asked())
			}
		}
		for range 3 {
			g.post("/v1/chat/completions", plainM).want(t, 502, "m@a;403;0")
		}
		shut("30", 3)
		time.Sleep(30 * time.Second)
		g.post("/v1/chat/completions", plainM).want(t, 502, "m@a;403;0") // the probe
		shut("60", 4)
		if err := g.p.Apply(load(t, text+"access_log: true\n", "")); err != nil {
			t.Fatal(err)
		}
		shut("60", 4)
		if err := g.p.Apply(load(t, strings.Replace(text, `http://a/v1"`, `http://a/v1", api_key: new`, 1), "")); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			g.post("/v1/chat/completions", plainM).want(t, 502, "m@a;403;0")
		}
		shut("30", 7)
		time.Sleep(30 * time.Second)
		for range 2 {
			g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0")
		}
		for _, says := range []string{`"msg":"credential refused","model":"m","upstream":"a","target":"m"`, `"msg":"credential accepted","model":"m"`} {
			if !strings.Contains(g.log.String(), says) {
				t.Errorf("not in the log: %s", says)
			}
		}
		g.wantNothingLeft()
	})
}

// TestNoRefusedCredential: what must not put a target to rest, however often it comes.
func TestNoRefusedCredential(t *testing.T) {
	for name, s := range map[string]step{
		"a firewall's page":             upstreamtest.Say(upstreamtest.Whole("403 Forbidden", "Text/HTML", "", "<p>blocked</p>")),
		"no money for a large request":  status("402 Payment Required"),
		"a model that is not there":     status("404 Not Found"),
		"a redirect":                    status("307 Elsewhere"),
		"a server that fails otherwise": status("529 Overloaded"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, "breaker: {failures: 1000}\n"+threeUpstreams+"  m: {targets: [{upstream: a}], max_retries: 0}\n", map[string]steps{"a": {s}})
				for range 9 {
					a := g.post("/v1/chat/completions", plainM)
					if a.header.Get("X-Sluice-Attempts") != "1" || strings.Contains(a.body, "blocked") {
						t.Errorf("%d %s", a.status, a.body)
					}
				}
				if s := g.p.Set().Models["m"].Targets[0].Status(); s.CredentialRefused {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestRestIsWaitedForBesideATargetThatWasLeft: the one that was left ends no wait.
func TestRestIsWaitedForBesideATargetThatWasLeft(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, withRetries(1), map[string]steps{"a": {status("401 Unauthorized")}, "b": {status("429 Slow", "Retry-After: 5"), good}})
		took := timed(func() { g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;401;0,m@b;429;0,m@b;200;0") })
		if took != 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestMostTargets: a request asks no more than 32 times, and answers with the last of them.
func TestMostTargets(t *testing.T) {
	targets := make([]string, 40)
	for i := range targets {
		targets[i] = fmt.Sprintf("{upstream: a, model: m%d}", i)
	}
	for _, more := range []string{"", ", fallbacks: [n]"} {
		inBubble(t, func(t *testing.T) {
			g, hosts := startScripted(t, threeUpstreams+"  m: {targets: ["+strings.Join(targets, ", ")+"]"+more+"}\n  n: {targets: [{upstream: b}]}\n",
				map[string]steps{"a": {status("404 Not Found")}, "b": {good}})
			a := g.post("/v1/chat/completions", plainM)
			if a.status != 404 || !strings.Contains(a.body, "theirs") || hosts["a"].Asked() != maxAttempts || hosts["b"].Asked() != 0 {
				t.Errorf("%d %s after %d attempts", a.status, a.body, hosts["a"].Asked())
			}
			asked := map[string]bool{}
			for _, r := range hosts["a"].Requests() {
				asked[string(r.Body)] = true
			}
			if len(asked) != maxAttempts {
				t.Errorf("%d different targets were asked", len(asked))
			}
			g.wantNothingLeft()
		})
	}
}

// TestAnotherUpstreamFirst: targets of the upstream that has just failed come last.
func TestAnotherUpstreamFirst(t *testing.T) {
	for _, bad := range []step{status("401 Unauthorized"), status("503 Busy"), upstreamtest.Refuse()} {
		inBubble(t, func(t *testing.T) {
			g, hosts := startScripted(t, threeUpstreams+"  m: {targets: [{upstream: a, model: x, weight: 1000000}, {upstream: a, model: y, weight: 1000000}, {upstream: b}], max_retries: 1}\n",
				map[string]steps{"a": {bad}, "b": {good}})
			if a := g.post("/v1/chat/completions", plainM); a.status != 200 || hosts["a"].Asked() != 1 {
				t.Errorf("%d %s", a.status, a.header.Get("X-Sluice-Trail"))
			}
		})
	}
}

// TestDrainingServer: behind a load balancer one server of two drains. It holds all pooled connections,
// and answers 503 on them, whether it closes them or not; a retry must reach the other.
func TestDrainingServer(t *testing.T) {
	for name, goodbye := range map[string]step{
		"says that it closes":    upstreamtest.Break(upstreamtest.Whole("503 Draining", "application/json", "Connection: close\r\n", errorBody)),
		"closes without a word":  upstreamtest.Break(upstreamtest.Whole("503 Draining", "application/json", "", errorBody)),
		"keeps its connections":  status("503 Draining"),
		"has nothing to say too": upstreamtest.Say("HTTP/1.1 503 Draining\r\nContent-Length: 0\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var draining atomic.Bool
				var held sync.WaitGroup
				held.Add(4)
				old := upstreamtest.NewPiped(t, func(conn net.Conn, r *upstreamtest.Recorded) {
					if draining.Load() {
						goodbye.Answer(conn, r)
						return
					}
					held.Done()
					held.Wait() // so that there are four connections
					good.Answer(conn, r)
				})
				young := upstreamtest.NewPiped(t, good.Answer)
				g := startInMemory(t, threeUpstreams+"  m: {targets: [{upstream: a}], max_retries: 1}\n", "", func(ctx context.Context, network, address string) (net.Conn, error) {
					if draining.Load() {
						return young.Dial(ctx, network, address)
					}
					return old.Dial(ctx, network, address)
				})
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() { g.post("/v1/chat/completions", plainM).want(t, 200, "m@a;200;0") })
				}
				wg.Wait()
				draining.Store(true)
				for range 2 {
					a := g.post("/v1/chat/completions", plainM)
					a.want(t, 200, "m@a;503;0,m@a;200;0")
				}
				if old, young := len(old.Requests()), young.Accepted(); old != 6 || young != 2 {
					t.Errorf("the old server got %d requests, the other %d connections", old, young)
				}
				g.wantNothingLeft()
			})
		})
	}
}
