package proxy

import (
	"strings"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/keys"
	"sluice/limiter"
)

// left is what is left of one of the key's limits.
func (g *gateway) left(k *keys.Key, limit string) limiter.State {
	g.t.Helper()
	for i := range k.Meters() {
		if m := &k.Meters()[i]; m.Name() == limit {
			state, _ := m.Left(g.p.clock())
			return state
		}
	}
	g.t.Fatal("no limit is called " + limit)
	return limiter.State{}
}

// TestRefusalNamesTheLimit: whichever it is, and takes nothing of the others.
func TestRefusalNamesTheLimit(t *testing.T) {
	hour := keys.Period(time.Hour)
	for _, test := range []struct {
		name             string
		requests, tokens int64
		body             string
		says             string
	}{
		{"requests", 1, 1000, body(10, ""), "the key is at its limit of 1 requests per 1h0m0s (limits.requests); try again in "},
		{"tokens", 9, 25, body(20, `"max_tokens":3,`),
			"the key is at its limit of 25 tokens per 1h0m0s (limits.tokens); this request needs 23, of which 20 are for its body; try again in "},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, k, _ := counted(t, oneUpstream, test.tokens, upstreamtest.Say(okReply))
			if _, err := g.keys.Update(k.Spec().ID, func(s *keys.Spec) error {
				s.Limits.Requests, s.Limits.Period = &test.requests, &hour
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if a := g.post("/v1/chat/completions", test.body); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			requests, tokens := g.left(k, "requests").Remaining, g.left(k, "tokens").Remaining
			a := g.post("/v1/chat/completions", test.body)
			errorRow{429, "rate_limit_error", "", "rate_limit_exceeded", test.says}.check(t, a)
			if r, u := g.left(k, "requests").Remaining, g.left(k, "tokens").Remaining; r != requests || u != tokens || k.Unsettled() != 0 {
				t.Errorf("%d requests and %d tokens are left, want %d and %d", r, u, requests, tokens)
			}
			for _, header := range []string{"Limit-Requests", "Remaining-Tokens", "Reset-Tokens"} {
				if a.header.Get("X-Ratelimit-"+header) == "" {
					t.Errorf("no %s", header)
				}
			}
		})
	}
}

// TestShownKey: what is left of each limit, in the order of the limits.
func TestShownKey(t *testing.T) {
	g, k, _ := counted(t, oneUpstream, 100)
	if a := g.send("GET", "/v1/key", ""); !strings.Contains(a.body, `"remaining":{"tokens":100,"reset_tokens":"0ms"}`) {
		t.Errorf("%s", a.body)
	}
	ten, two := int64(10), int64(2)
	if _, err := g.keys.Update(k.Spec().ID, func(s *keys.Spec) error {
		s.Limits.Requests, s.Limits.Concurrent = &ten, &two
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := `"remaining":{"requests":10,"reset_requests":"0ms","tokens":100,"reset_tokens":"0ms","concurrent":2}`
	if a := g.send("GET", "/v1/key", ""); !strings.Contains(a.body, want) {
		t.Errorf("%s", a.body)
	}
}
