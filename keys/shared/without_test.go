package shared

import (
	"testing"
	"time"

	"sluice/keys"
	"sluice/limiter"
)

const day = keys.Period(24 * time.Hour)

// TestPartOfALimit: without Redis a node admits its part at once, rounded down, less what it has itself spent.
func TestPartOfALimit(t *testing.T) {
	for _, test := range []struct {
		name               string
		limit, nodes, want int64
		left               bool // a node has gone within the period
		spent              int64
	}{
		{name: "even", limit: 300, nodes: 3, want: 100},
		{name: "rounded down", limit: 299, nodes: 3, want: 99},
		{name: "less what it has spent", limit: 300, nodes: 3, spent: 40, want: 60},
		{name: "it has spent more", limit: 300, nodes: 3, spent: 200, want: 0},
		{name: "fewer than there are nodes", limit: 2, nodes: 3, want: 0},
		{name: "as many as there are nodes", limit: 3, nodes: 3, want: 1},
		{name: "one node", limit: 7, nodes: 1, want: 7},
		{name: "somebody went", limit: 300, nodes: 3, left: true, want: 99},
		{name: "somebody went, one node", limit: 1, nodes: 1, left: true, want: 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &clock{time.Hour}
			s := newLone(c, test.nodes)
			if test.left {
				s.r.roster.left.Store(int64(c.at - time.Minute))
			}
			limits := map[string]keys.Limits{"requests": {Requests: &test.limit}, "tokens": {Tokens: &test.limit}}
			for name, l := range limits {
				l.Period = ptr(day)
				k := s.add(t, name, l)
				lend(shareOf(k, name), test.spent)
				for range test.spent {
					c, _, _ := reserve(k, s.r.now(), 1)
					c.settle(s.r.now(), 1)
				}
			}
			s.loseAt(c.at)
			for name := range limits {
				k, _ := s.Get("key_" + name)
				admitted := int64(0)
				c, state, ok := reserve(k, s.r.now(), 1)
				for ; ok; c, state, ok = reserve(k, s.r.now(), 1) {
					c.settle(s.r.now(), 1)
					admitted++
				}
				if admitted != test.want {
					t.Errorf("%d %s, want %d", admitted, name, test.want)
				}
				if none := test.limit < test.nodes || test.left && test.limit == 1; state.Uncounted != none {
					t.Errorf("%s: a refusal is called unknown: %t", name, state.Uncounted)
				}
				if state.RetryAfter <= 0 || state.RetryAfter > soonAgain || state.Remaining != 0 {
					t.Errorf("%s: %+v", name, state)
				}
				if left, _ := meterOf(k, name).Left(s.r.now()); left.Remaining != 0 {
					t.Errorf("it is said that %d %s are left", left.Remaining, name)
				}
				if state, ok := peek(k, s.r.now(), 1); ok || state.Remaining != 0 {
					t.Errorf("%s: %t, %+v", name, ok, state)
				}
				if said := shareOf(k, name).extra.Load(); said != test.want {
					t.Errorf("%d %s are to be said, want %d", said, name, test.want)
				}
			}
			// A new era: all is declared, and no part of it is said besides.
			declared := s.r.spendings("2")
			if all := test.spent + test.want; len(declared) != 2 && all > 0 {
				t.Errorf("%+v", declared)
			}
			for _, one := range declared {
				if one.amount != test.spent+test.want {
					t.Errorf("%d is declared, want %d", one.amount, test.spent+test.want)
				}
				if n := one.share.extra.Load(); n != 0 {
					t.Errorf("%d is said twice", n)
				}
			}
		})
	}
}

// TestLargeRequestWithoutRedis: one that needs more tokens than the node's part is not told that the limit is reached.
func TestLargeRequestWithoutRedis(t *testing.T) {
	c := &clock{time.Hour}
	s := newLone(c, 3)
	k := s.add(t, "x", keys.Limits{Tokens: ptr(int64(300)), Period: ptr(day)})
	s.loseAt(c.at)
	if _, state, admitted := reserve(k, c.at, 101); admitted || !state.Uncounted {
		t.Errorf("%t, %+v", admitted, state)
	}
	if state, admitted := peek(k, c.at, 101); admitted || !state.Uncounted {
		t.Errorf("%t, %+v", admitted, state)
	}
	if _, _, admitted := reserve(k, c.at, 100); !admitted {
		t.Error("its part is refused")
	}
}

// TestStrictWithoutRedis: nothing for a period, then the node's part.
func TestStrictWithoutRedis(t *testing.T) {
	c := &clock{time.Hour}
	s := newLone(c, 3)
	k := s.add(t, "x", keys.Limits{Requests: ptr(int64(9)), Period: ptr(keys.Period(time.Minute))})
	s.HoldStrictly(true)
	s.loseAt(c.at)
	begin := c.at
	for ; c.at < begin+time.Minute+leaseTime(time.Minute); c.at += time.Second / 2 {
		if state, admitted := ask(k, c.at); admitted || !state.Uncounted {
			t.Fatalf("%s: %t, %+v", c.at-begin, admitted, state)
		}
	}
	for range 3 {
		if !admit(k, c.at) {
			t.Error("its part is refused")
		}
	}
	if admit(k, c.at) {
		t.Error("more than its part")
	}
	s.HoldStrictly(false)
	s.loseAt(c.at)
	c.at += 2 * time.Minute
	if !admit(k, c.at) {
		t.Error("the rule does not change")
	}
}

// TestSettledWithoutRedis: of tokens that were reserved while nobody counted, what was used is said, once.
func TestSettledWithoutRedis(t *testing.T) {
	c := &clock{time.Hour}
	s := newLone(c, 3)
	k := s.add(t, "x", keys.Limits{Tokens: ptr(int64(300)), Period: ptr(day)})
	s.loseAt(c.at)
	for _, test := range []struct{ reserved, used, declared, extra int64 }{
		{reserved: 40, used: 10, extra: 10},
		{reserved: 10, used: 15, extra: 15},
		{reserved: 20, used: 0, extra: 0},
		{reserved: 10, used: 15, declared: 35, extra: 5}, // the 10 were declared as spent, with the 25 of above
	} {
		charge, _, admitted := reserve(k, c.at, test.reserved)
		if !admitted {
			t.Fatal("refused")
		}
		if test.declared > 0 {
			if all := s.r.spendings("2"); len(all) != 1 || all[0].amount != test.declared {
				t.Errorf("%+v is declared, want %d", all, test.declared)
			}
		}
		charge.settle(c.at, test.used)
		if say, _, _ := shareOf(k, "tokens").reported(limiter.Rule{Limit: 300, Period: time.Duration(day)}); say.extra != test.extra {
			t.Errorf("%+v: %d is said", test, say.extra)
		}
	}
}

// TestSaidWhereTheEraHasChanged: what is reported in an era that has ended is said again, unless it was declared.
func TestSaidWhereTheEraHasChanged(t *testing.T) {
	c := &clock{time.Hour}
	s := newLone(c, 1)
	k := s.add(t, "x", keys.Limits{Requests: ptr(int64(300)), Period: ptr(day)})
	s.loseAt(c.at)
	w := limiter.Rule{Limit: 300, Period: time.Duration(day)}
	admit(k, c.at)
	say, _, term := shareOf(k, "requests").reported(w)
	shareOf(k, "requests").unreported(w, say, term)
	if n := shareOf(k, "requests").extra.Load(); n != 1 {
		t.Errorf("%d to be said again", n)
	}
	say, _, term = shareOf(k, "requests").reported(w)
	if all := s.r.spendings("2"); len(all) != 1 || all[0].amount != 1 {
		t.Errorf("%+v", all)
	}
	shareOf(k, "requests").unreported(w, say, term)
	if n := shareOf(k, "requests").extra.Load(); n != 0 {
		t.Errorf("%d said twice", n)
	}
}

// TestRoster: nodes that come back one after another are not taken for fewer.
func TestRoster(t *testing.T) {
	var o roster
	o.left.Store(never)
	for i, step := range []struct {
		at     time.Duration
		nodes  int64
		broken bool
		want   int64
	}{
		{at: 0, nodes: 1, want: 1},
		{at: time.Second, nodes: 3, want: 3},
		{at: 2 * time.Second, nodes: 2, want: 3}, // one has gone
		{at: 12 * time.Second, nodes: 2, want: 2},
		{at: time.Hour, nodes: 1, broken: true, want: 2}, // Redis was away; the other has not come back yet
		{at: time.Hour + 2*time.Second, nodes: 1, want: 2},
		{at: time.Hour + 3*time.Second, nodes: 1, broken: true, want: 2},
		{at: time.Hour + 12*time.Second, nodes: 1, want: 2},
		{at: time.Hour + 14*time.Second, nodes: 1, want: 1},
		{at: time.Hour + 15*time.Second, nodes: 0, want: 1},
	} {
		if o.hear(step.at, step.nodes, -1, step.broken, normalPace.missed); o.most.Load() != step.want {
			t.Errorf("step %d: %d nodes, want %d", i, o.most.Load(), step.want)
		}
	}
	o.hear(2*time.Hour, 1, time.Minute, false, normalPace.missed)
	o.hear(2*time.Hour, 1, -1, true, normalPace.missed) // Redis was emptied, and knows of nobody who went
	if at := time.Duration(o.left.Load()); at != 2*time.Hour-time.Minute {
		t.Errorf("a node went at %s", at)
	}
}

// TestUncountedAllocatesNothing: a request that a node admits or refuses by itself costs no memory.
func TestUncountedAllocatesNothing(t *testing.T) {
	c := &clock{time.Hour}
	s := newLone(c, 2)
	k := s.add(t, "x", keys.Limits{Requests: ptr(int64(400)), Tokens: ptr(int64(400)), Period: ptr(day)})
	s.loseAt(c.at)
	admit(k, c.at) // the first is noted
	request := &charge{needs: 1}
	admitted := 0
	if n := testing.AllocsPerRun(500, func() {
		if k.Reserve(c.at, request, &request.Reservation) == nil {
			admitted++
		}
		request.settle(c.at, 1)
		k.Peek(c.at, request, &request.Reservation)
	}); n != 0 || admitted != 199 {
		t.Errorf("%v allocations, %d admitted", n, admitted)
	}
}
