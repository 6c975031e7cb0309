package proxy

import (
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

func TestCrossOrigin(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(upstreamtest.Whole("200 OK", "application/json", "Access-Control-Allow-Origin: *\r\nVary: Accept\r\n", okBody)))
	const page = "https://app.example"
	with := start(t, oneModel+"cors: {origins: ["+page+"]}\n", up.Address())
	any := start(t, oneModel+"cors: {origins: ['*']}\n", up.Address())
	without := start(t, oneModel, up.Address())
	for _, test := range []struct {
		name, origin string
		g            *gateway
		allowed      string
	}{
		{"its page", page, with, page}, {"another page", "https://evil.example", with, ""}, {"no page", "", with, ""},
		{"another port", page + ":444", with, ""}, {"any page", "https://x.example", any, "https://x.example"}, {"without", page, without, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := test.g.send("OPTIONS", "/v1/chat/completions", "", "Authorization", "", "Origin", test.origin,
				"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization, x-stainless-lang")
			h := a.header
			switch {
			case test.allowed == "":
				if a.status != 405 || h.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%d %v", a.status, h)
				}
			case a.status != 204 || h.Get("Access-Control-Allow-Origin") != test.allowed || h.Get("Access-Control-Allow-Methods") != "GET, HEAD, POST" ||
				h.Get("Access-Control-Allow-Headers") != "authorization, x-stainless-lang":
				t.Errorf("%d %v", a.status, h)
			}
			for _, body := range []string{plainM, "{"} {
				h := test.g.post("/v1/chat/completions", body, "Origin", test.origin).header
				if got := strings.Join(h.Values("Access-Control-Allow-Origin"), "|"); got != test.allowed {
					t.Errorf("%s: allowed is %q", body, got)
				}
				if exposed := h.Get("Access-Control-Expose-Headers"); strings.Contains(exposed, "X-Sluice-Trail") != (test.allowed != "") {
					t.Errorf("%s: exposed are %q", body, exposed)
				}
				if vary := strings.Join(h.Values("Vary"), ","); strings.Contains(vary, "Origin") != (test.g != without) {
					t.Errorf("%s: Vary is %q", body, vary)
				}
			}
		})
	}
}
