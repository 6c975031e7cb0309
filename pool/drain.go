package pool

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// An operator can drain an upstream, or one of its targets: what is in flight there ends by itself, and
// no new attempt begins. Switches belong to names, not to what a configuration makes of them, so that a
// reload leaves them as they are. A name that the configuration loses, and the process's end, forget them.

// drainKey names an upstream, or with target what it calls a model.
type drainKey struct{ upstream, target string }

// drainSwitch is the one of a name, from now on kept. p.mu is held.
func (p *Pool) drainSwitch(key drainKey) *atomic.Bool {
	s := p.drains[key]
	if s == nil {
		s = new(atomic.Bool)
		p.drains[key] = s
	}
	return s
}

// forgetDrains drops the switches that s does not use. p.mu is held.
func (p *Pool) forgetDrains(s *Set) {
	used := map[*atomic.Bool]bool{}
	for _, u := range s.Upstreams {
		used[u.drained] = true
	}
	for _, m := range s.Models {
		for _, t := range slices.Concat(m.Targets, m.Unset) {
			used[t.health.drained] = true
		}
	}
	maps.DeleteFunc(p.drains, func(_ drainKey, s *atomic.Bool) bool { return !used[s] })
}

// Drain takes an upstream out of service, or with on false back in; with target only what the upstream
// calls so, for all models. It returns what is then shown of the upstream. The error is that there is no
// such upstream, or no such target.
func (p *Pool) Drain(upstream, target string, on bool) (Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.current[upstream]
	if u == nil {
		return Status{}, fmt.Errorf("no upstream is called %.100q; upstreams are %s", upstream, someNames(maps.Keys(p.current)))
	}
	if target != "" && !u.targetNames()[target] {
		return Status{}, fmt.Errorf("upstream %s has no target called %.100q; its targets are %s", upstream, target, someNames(maps.Keys(u.targetNames())))
	}
	if p.drainSwitch(drainKey{upstream, target}).Swap(on) != on {
		u.noteDrain(target, on)
	}
	return u.Status(), nil
}

// noteDrain logs a change, and has the gauges show what it is about.
func (u *Upstream) noteDrain(target string, on bool) {
	u.asked.Store(true)
	u.mu.Lock()
	for key, h := range u.targets {
		if target == "" || key.name == target {
			h.asked.Store(true)
		}
	}
	u.mu.Unlock()
	says := "undrained: it gets requests again"
	if on {
		says = "drained: it gets no new requests"
	}
	u.log.Warn(says, "upstream", u.Name, "target", target)
}

// targetNames are what the upstream calls models.
func (u *Upstream) targetNames() map[string]bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	names := map[string]bool{}
	for key := range u.targets {
		names[key.name] = true
	}
	return names
}

// someNames lists names, and how many there are beyond the first.
func someNames(names iter.Seq[string]) string {
	const most = 20
	all := slices.Sorted(names)
	if len(all) > most {
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", len(all)-most)
	}
	return strings.Join(all, ", ")
}

// drainedNow reports whether t, or its upstream, is drained.
func (t *Target) drainedNow() bool { return t.health.drained.Load() || t.Upstream.drained.Load() }

// InService reports whether one of the model's targets is not drained.
func (m *Model) InService() bool {
	return slices.ContainsFunc(m.Targets, func(t *Target) bool { return !t.drainedNow() })
}
