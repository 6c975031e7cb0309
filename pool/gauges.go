package pool

import "sluice/metrics"

// gauges is what the metrics show of the upstreams that have been asked.
func (p *Pool) gauges() (all []metrics.UpstreamState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.current {
		if u.asked.Load() {
			all = append(all, u.gauges())
		}
	}
	return all
}

func (u *Upstream) gauges() metrics.UpstreamState {
	s := metrics.UpstreamState{Name: u.Name, InFlight: u.inFlight.Load(), MaxInFlight: u.queue.Limit(),
		Waiting: u.queue.Waiting(), Connections: u.roster.count()}
	now := u.clock()
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, h := range u.targets {
		if h.asked.Load() {
			s.Targets = append(s.Targets, metrics.TargetState{Model: key.model, Name: key.name, Breaker: int(h.breaker.state(now)), InFlight: h.inFlight.Load(),
				CredentialRefused: h.credential.state(now) != Closed, Drained: u.drained.Load() || h.drained.Load()})
		}
	}
	return s
}
