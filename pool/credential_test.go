package pool

import (
	"testing"
	"time"
)

// TestRefusedCredential: three refusals in a row put a target to rest, and a probe decides whether
// the rest doubles or ends.
func TestRefusedCredential(t *testing.T) {
	const deny, other, ok, fail, unclear, unknown = CredentialDenied, Refused, Served, Failed, Unclear, Unknown
	type step struct {
		after time.Duration // since the step before
		ends  []Outcome     // of attempts, as far as they are let
		want  BreakerState  // of the credential
	}
	for name, steps := range map[string][]step{
		"three in a row":           {{0, []Outcome{deny, deny}, Closed}, {0, []Outcome{deny}, Open}, {30*sec - 1, nil, Open}, {1, nil, HalfOpen}},
		"an answer in between":     {{0, []Outcome{deny, deny, ok, deny, deny, other, deny, deny}, Closed}},
		"what says nothing of it":  {{0, []Outcome{deny, unclear, deny, fail, unknown}, Closed}, {0, []Outcome{deny}, Open}},
		"failures are no refusals": {{0, []Outcome{fail, fail, fail}, Closed}},
		"the probe is accepted":    {{0, []Outcome{deny, deny, deny}, Open}, {30 * sec, []Outcome{other}, Closed}, {0, []Outcome{deny, deny}, Closed}},
		"the probe tells nothing":  {{0, []Outcome{deny, deny, deny}, Open}, {30 * sec, []Outcome{unclear}, HalfOpen}, {0, []Outcome{ok}, Closed}},
		"the rest doubles to ten minutes": {{0, []Outcome{deny, deny, deny}, Open}, {30 * sec, []Outcome{deny}, Open}, {60*sec - 1, nil, Open}, {1, []Outcome{deny}, Open},
			{120 * sec, []Outcome{deny}, Open}, {240 * sec, []Outcome{deny}, Open}, {480 * sec, []Outcome{deny}, Open}, {600*sec - 1, nil, Open}, {1, []Outcome{deny}, Open},
			{600*sec - 1, nil, Open}, {1, []Outcome{ok}, Closed}, {0, []Outcome{deny, deny, deny}, Open}, {30 * sec, nil, HalfOpen}},
	} {
		t.Run(name, func(t *testing.T) {
			target := model(t, "").Targets[0]
			now := time.Duration(0)
			for i, s := range steps {
				now += s.after
				for _, o := range s.ends {
					if p, entered := target.Enter(now); entered {
						target.Leave(now, p, o)
					}
				}
				if got := target.health.credential.state(now); got != s.want || target.healthy(now) != (s.want != Open && target.Closed(now)) {
					t.Fatalf("step %d: %s, healthy %t, want %s", i, got, target.healthy(now), s.want)
				}
			}
			if n := target.load(); n != 0 {
				t.Errorf("%d in flight", n)
			}
		})
	}
}

// TestBothProbes: a target whose breaker and credential are both half open gets one probe, which
// answers for both.
func TestBothProbes(t *testing.T) {
	target := model(t, "").Targets[0]
	places := make([]Place, 6)
	for i := range places {
		places[i], _ = target.Enter(0)
	}
	for i, p := range places {
		target.Leave(0, p, []Outcome{Failed, CredentialDenied}[i/3])
	}
	if why := (&Model{Targets: []*Target{target}}).Reasons(0); why != (Reasons{Open: true, CredentialRefused: true}) {
		t.Fatalf("%+v", why)
	}
	if _, ok := target.Enter(sec); ok || target.health.breaker.state(sec) != HalfOpen {
		t.Error("the probe of the breaker was spent on a target that rests")
	}
	probe, ok := target.Enter(30 * sec)
	if _, second := target.Enter(30 * sec); !ok || second || !probe.probe || !probe.checks {
		t.Fatalf("%t, %t, %+v", ok, second, probe)
	}
	target.Leave(30*sec, target.Answered(30*sec, probe), Served)
	if !target.Closed(30*sec) || target.health.credential.state(30*sec) != Closed || target.load() != 0 {
		t.Error("the probe's answer did not close both")
	}
}

// TestChangedCredential: what was said of the old one is nothing to the new one.
func TestChangedCredential(t *testing.T) {
	const text = `
models: {m: {targets: [{upstream: a}]}}
upstreams: {a: {base_url: "http://a/v1", `
	for more, kept := range map[string]bool{
		"api_key: old}}":                                  true,
		"api_key: old, max_in_flight: 7}}":                true,
		"api_key: new}}":                                  false,
		"api_key: old, auth_header: x-key}}":              false,
		"api_key: old, headers: {x-org: new}}}":           false,
		"api_key: old, query: {key: new}}}":               false,
		"api_key: old, headers: {authorization: other}}}": false,
	} {
		p := empty()
		build := func(more string) *Target {
			s := p.Build(load(t, text+more))
			p.Adopt(s)
			return s.Models["m"].Targets[0]
		}
		old := build("api_key: old}}")
		late, _ := old.Enter(0)
		for range 3 {
			p, _ := old.Enter(0)
			old.Leave(0, p, CredentialDenied)
		}
		old.Rest(0, sec)
		if p.Build(load(t, text+more)); old.healthy(0) {
			t.Error("a configuration that was not adopted has ended the rest")
		}
		target := build(more)
		if got := !target.healthy(0); got != kept {
			t.Errorf("%s: rests: %t, want %t", more, got, kept)
		}
		old.Leave(0, late, CredentialDenied)
	}
}
