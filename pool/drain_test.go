package pool

import (
	"fmt"
	"strings"
	"testing"
)

// TestDrainNamesWhatIsThere, in what it returns and in its errors; switches do not pile up.
func TestDrainNamesWhatIsThere(t *testing.T) {
	p := empty()
	text := func(target string) string {
		return `
upstreams: {a: {base_url: "http://a/v1"}, b: {base_url: "http://b/v1"}}
models: {m: {targets: [{upstream: a, model: "` + target + `"}]}, n: {targets: [{upstream: a, model: y}]}}
`
	}
	p.Adopt(p.Build(load(t, text("x/1"))))
	for _, test := range []struct{ upstream, target, want string }{
		{"c", "", `no upstream is called "c"; upstreams are a, b`},
		{"a", "z", `upstream a has no target called "z"; its targets are x/1, y`},
		{"b", "y", `upstream b has no target called "y"; its targets are `},
	} {
		if _, err := p.Drain(test.upstream, test.target, true); err == nil || err.Error() != test.want {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
	s, err := p.Drain("a", "x/1", true)
	if err != nil || s.Drained || !s.Targets[0].Drained || s.Targets[1].Drained {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = p.Drain("a", "", true); err != nil || !s.Drained || !s.Targets[1].Drained {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = p.Drain("a", "", false); err != nil || s.Drained || !s.Targets[0].Drained || s.Targets[1].Drained {
		t.Errorf("%+v, %v", s, err)
	}
	if shown := p.gauges(); len(shown) != 1 || len(shown[0].Targets) != 2 {
		t.Errorf("the gauges show %+v", shown)
	}
	for i := range 100 {
		p.Adopt(p.Build(load(t, text(fmt.Sprint("model-", i)))))
	}
	if len(p.drains) != 4 { // two upstreams and two targets
		t.Errorf("%d switches", len(p.drains))
	}
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprintf("u%02d: {base_url: \"http://u/\"}", i))
	}
	p.Adopt(p.Build(load(t, "upstreams: {"+strings.Join(many, ", ")+"}\nmodels: {m: {targets: [{upstream: u00}]}}")))
	if _, err := p.Drain("x", "", true); err == nil || !strings.HasSuffix(err.Error(), "u18, u19 and 10 more") {
		t.Errorf("%v", err)
	}
	p.Close()
	if len(p.drains) != 0 {
		t.Errorf("%d switches at the end", len(p.drains))
	}
}
