package admin

import "testing"

func TestDrain(t *testing.T) {
	p := start(t)
	for _, test := range []struct {
		path    string
		drained bool
		m, n    bool // the targets of these models, up-m and n
	}{
		{"/api/upstreams/up/drain", true, true, true},
		{"/api/upstreams/up/drain", true, true, true},
		{"/api/upstreams/up/undrain", false, false, false},
		{"/api/upstreams/up/drain?target=up-m", false, true, false},
	} {
		if status, v := p.call("POST", test.path, ""); status != 200 || v["name"] != "up" || v["drained"] != test.drained {
			t.Errorf("%s: %d %v", test.path, status, v)
		}
		_, v := p.call("GET", "/api/upstreams", "")
		u := v["data"].([]any)[0].(map[string]any)
		target := func(i int) any { return u["targets"].([]any)[i].(map[string]any)["drained"] }
		if u["drained"] != test.drained || target(0) != test.m || target(1) != test.n {
			t.Errorf("after %s: %v", test.path, u)
		}
	}
	p.refused("POST", "/api/upstreams/down/drain", "", 404, "not_found", "", `no upstream is called "down"`)
	p.refused("POST", "/api/upstreams/up/drain?target=x", "", 404, "not_found", "", "its targets are n, up-m")
	p.refused("POST", "/api/upstreams/up/drain?target=", "", 400, "invalid_request", "target", "target must be")
	p.refused("POST", "/api/upstreams/up/drain?tagret=up-m", "", 400, "invalid_request", "tagret", "is not known; known are target")
	p.refused("GET", "/api/upstreams/up/drain", "", 405, "method_not_allowed", "", "POST")
	p.refused("POST", "/api/upstreams/up/drain", "", 401, "invalid_api_key", "", "send", "Authorization", "Bearer wrong")
}
