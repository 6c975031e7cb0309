package proxy

import (
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

// TestCredentialThatIsNotSet: nothing is sent to an upstream without its credential. Where nothing else can
// answer the error says what is not set, and the model is not listed.
func TestCredentialThatIsNotSet(t *testing.T) {
	const text = `
admin: {token: 0123456789abcdef}
upstreams: {a: {base_url: "http://a/v1", api_key: "${SLUICE_TEST_UNSET:-}"}, b: {base_url: "http://b/v1"}}
models:
  bare: {targets: [{upstream: a}]}
  rescued: {targets: [{upstream: a}], fallbacks: [open]}
  mixed: {targets: [{upstream: a, weight: 1000}, {upstream: b}], max_retries: 1}
  open: {targets: [{upstream: b}], fallbacks: [bare]}
`
	const why = "nothing is sent to upstream a, since its API key is not set (SLUICE_TEST_UNSET is not in the environment, or empty)"
	inBubble(t, func(t *testing.T) {
		g, hosts := startScripted(t, text, map[string]steps{"a": {good}, "b": {good, good, status("503 No"), good, status("404 No"), good}})
		for _, test := range []struct {
			model, trail string
			status       int
		}{
			{"rescued", "open@b;200;0", 200}, {"open", "open@b;200;0", 200}, {"mixed", "mixed@b;503;0,mixed@b;200;0", 200}, {"open", "open@b;404;0", 404},
		} {
			g.post("/v1/chat/completions", `{"model":"`+test.model+`"}`).want(t, test.status, test.trail)
		}
		for path, kind := range map[string]string{"/v1/chat/completions": `"type":"overloaded_error","param":"model","code":"no_healthy_upstream"`, "/v1/messages": `"type":"overloaded_error"`} {
			a := g.post(path, `{"model":"bare"}`)
			a.want(t, 503, "")
			if !strings.Contains(a.body, "the model bare cannot be used: "+why) || !strings.Contains(a.body, kind) ||
				a.header.Get("Retry-After") != "" || a.header.Get("X-Should-Retry") != "false" {
				t.Errorf("%v %s", a.header, a.body)
			}
		}
		list := g.send("GET", "/v1/models", "").body
		for model, listed := range map[string]bool{"bare": false, "rescued": false, "mixed": true, "open": true} {
			if strings.Contains(list, `"id":"`+model+`"`) != listed {
				t.Errorf("%s: %s", model, list)
			}
			a := g.send("GET", "/v1/models/"+model, "")
			if (a.status == 200) != listed || !listed && (a.status != 404 || !strings.Contains(a.body, why)) {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		if n := len(hosts["a"].Requests()); n != 0 {
			t.Errorf("%d requests were sent without a credential", n)
		}
		g.wantNothingLeft()
	})
}

// TestCredentialIsSetLater: a reload with the credential brings the model back.
func TestCredentialIsSetLater(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	text := strings.Replace(oneModel, "provider-key", `"${SLUICE_TEST_UNSET:-}"`, 1)
	g := start(t, text, up.Address())
	if a := g.post("/v1/chat/completions", plainM); a.status != 503 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	t.Setenv("SLUICE_TEST_UNSET", "provider-key")
	if err := g.p.Apply(load(t, text, up.Address())); err != nil {
		t.Fatal(err)
	}
	if a := g.post("/v1/chat/completions", plainM); a.status != 200 || up.Requests()[0].Header.Get("Authorization") != "Bearer provider-key" {
		t.Errorf("%d %s", a.status, a.body)
	}
}
