package shared

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sluice/keys"
	"sluice/limiter"
)

// grant is a part of the limit that the world's Redis counts until a period after a moment.
type grant struct {
	amount int64
	until  time.Duration
	lease  *limiter.Lease
}

// world is some nodes, a Redis that counts as leaseScript does, and a memory of all that was admitted.
type world struct {
	t testing.TB
	*rand.Rand
	clock
	limiter.Rule
	away     bool
	lostAt   time.Duration
	opens    time.Duration
	leftAt   time.Duration
	nodes    []*worldNode
	grants   []grant
	admitted []grant // amount, and when
}

type worldNode struct {
	lone
	key   *keys.Key
	share *share
}

func (w *world) join() {
	n := newLone(&w.clock, 1)
	k := n.add(w.t, "x", keys.Limits{Requests: ptr(w.Limit), Period: ptr(keys.Period(w.Period))})
	w.nodes = append(w.nodes, &worldNode{n, k, shareOf(k, "requests")})
	w.beat(false)
}

// beat has all nodes hear how many they are, and says what they have to say.
func (w *world) beat(broken bool) {
	for _, n := range w.nodes {
		left := time.Duration(-1)
		if w.leftAt >= 0 {
			left = w.at - w.leftAt
		}
		n.r.roster.hear(w.at, int64(len(w.nodes)), left, broken, normalPace.missed)
		n.r.away.Store(false)
		n.r.leases.silence.Store(int64(w.opens))
		if say, _, _ := n.share.reported(w.Rule); say.extra > 0 {
			w.grants = append(w.grants, grant{amount: say.extra, until: w.at})
		}
	}
}

// leave is a node that ends, and what was to come back of its lease does not.
func (w *world) leave(i int) {
	w.nodes = slices.Delete(w.nodes, i, i+1)
	if !w.away {
		w.leftAt = w.at
	}
}

func (w *world) lose() {
	w.away, w.lostAt = true, w.at
	for _, n := range w.nodes {
		n.loseAt(w.at)
	}
}

// find is Redis answering again. If that took long, or it was another process, a new era begins.
func (w *world) find() {
	w.away = false
	newEra := w.at-w.lostAt > normalPace.cutOff || w.IntN(2) == 0
	if newEra {
		w.grants, w.opens = nil, w.at+normalPace.settle
		for _, n := range w.nodes {
			for _, one := range n.r.spendings(w.at.String()) {
				w.grants = append(w.grants, grant{amount: one.amount, until: w.at})
			}
		}
	}
	w.beat(newEra)
}

// offer gives a node a lease if it has none, and reports whether it has one.
func (w *world) offer(n *worldNode) bool {
	if l := n.share.lease.Load(); l != nil && !l.Over(w.at) && l.Left() > 0 {
		return true
	}
	free := w.Limit
	w.grants = slices.DeleteFunc(w.grants, func(g grant) bool { return g.until+w.Period < w.at })
	for i, g := range w.grants {
		if g.lease != nil && g.lease.Over(w.at) {
			w.grants[i].amount -= g.lease.End()
			w.grants[i].lease = nil
		}
		free -= w.grants[i].amount
	}
	if free <= 0 {
		return false
	}
	n.share.lease.Store(nil)
	amount := 1 + w.Int64N(free)
	l := limiter.NewLease(amount, w.at+leaseTime(w.Period), 0, n.share.term.Load())
	w.grants = append(w.grants, grant{amount, w.at + leaseTime(w.Period), l})
	return n.share.begin(l, amount)
}

func (w *world) ask(n *worldNode, times int) {
	for range times {
		if !w.away && w.at >= w.opens && !w.offer(n) {
			return // used up, as far as Redis knows
		}
		if admit(n.key, w.at) {
			w.admitted = append(w.admitted, grant{amount: 1, until: w.at})
		}
	}
}

// most is what was admitted in the fullest interval of length period.
func (w *world) most() (most int64) {
	first, sum := 0, int64(0)
	for _, a := range w.admitted {
		sum += a.amount
		for a.until-w.admitted[first].until > w.Period {
			sum -= w.admitted[first].amount
			first++
		}
		most = max(most, sum)
	}
	return most
}

// TestLessThanTwice: whatever the nodes, their traffic and Redis do, in no interval of length period is twice the limit
// admitted. In every other schedule nodes come and go, and Redis goes once; in the rest Redis comes and goes.
func TestLessThanTwice(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	fullest := 0.0
	for schedule := range 60 {
		r := rand.New(rand.NewPCG(seed, uint64(schedule)))
		w := &world{t: t, Rand: r, leftAt: -1}
		w.at = time.Hour
		w.Rule.Period = []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}[r.IntN(4)]
		w.Rule.Limit = []int64{1, 2, 3, 6, 7, 30, 100}[r.IntN(7)]
		for range 1 + r.IntN(4) {
			w.join()
		}
		comeAndGo := schedule%2 == 0
		for step := range 200 {
			w.at += time.Duration(r.Int64N(int64(w.Period / 50)))
			switch change := r.IntN(20); {
			case w.away && comeAndGo && change == 0 && len(w.nodes) > 1:
				w.leave(r.IntN(len(w.nodes)))
			case w.away && !comeAndGo && change < 3:
				w.find()
			case w.away:
			case change == 0 && (!comeAndGo || step > 100):
				w.lose()
			case change < 3 && comeAndGo && len(w.nodes) < 5:
				w.join()
			case change < 5 && comeAndGo && len(w.nodes) > 1:
				w.leave(r.IntN(len(w.nodes)))
			case change < 5 && comeAndGo: // it starts anew
				w.leave(0)
				w.join()
			default:
				w.beat(false)
			}
			if r.IntN(3) > 0 {
				w.ask(w.nodes[r.IntN(len(w.nodes))], r.IntN(int(w.Limit)*3/2+2))
			}
		}
		most := w.most()
		if most >= 2*w.Limit {
			t.Fatalf("schedule %d: %d in a period of %s, the limit is %d", schedule, most, w.Period, w.Limit)
		}
		fullest = max(fullest, float64(most)/float64(w.Limit))
	}
	if t.Logf("at most %.2f times the limit", fullest); fullest < 1.5 {
		t.Error("no schedule was bad enough to show anything")
	}
}

// TestWorstCase: all of the limit was spent by a node that has gone when Redis goes.
func TestWorstCase(t *testing.T) {
	for nodes := 1; nodes <= 4; nodes++ {
		w := &world{t: t, Rand: rand.New(rand.NewPCG(1, 1)), leftAt: -1, Rule: limiter.Rule{Limit: 12, Period: 24 * time.Hour}}
		w.at = time.Hour
		for range nodes {
			w.join()
		}
		w.ask(w.nodes[0], 100)
		w.leave(0)
		w.join()
		w.at += time.Hour
		w.beat(false)
		w.lose()
		for _, n := range w.nodes {
			w.ask(n, 100)
		}
		want := 12 + int64(nodes)*(11/int64(nodes))
		if most := w.most(); most != want || want >= 24 {
			t.Errorf("%d nodes: %d in a period, want %d", nodes, most, want)
		}
	}
}

// TestEvenLoad: where each node has spent no more than its part, the sum stays the limit.
func TestEvenLoad(t *testing.T) {
	w := &world{t: t, Rand: rand.New(rand.NewPCG(1, 2)), leftAt: -1, Rule: limiter.Rule{Limit: 300, Period: 24 * time.Hour}}
	w.at = time.Hour
	for range 3 {
		w.join()
	}
	for i := range 40 {
		for _, n := range w.nodes {
			lend(n.share, 2)
			w.at += time.Second
			if i%2 == 0 {
				admit(n.key, w.at)
				w.admitted = append(w.admitted, grant{amount: 1, until: w.at})
			}
		}
	}
	w.lose()
	for range 300 {
		for _, n := range w.nodes {
			w.ask(n, 1)
		}
	}
	if most := w.most(); most != 300 {
		t.Errorf("%d in a period", most)
	}
}
