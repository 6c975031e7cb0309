package keys

import (
	"log/slog"
	"testing"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"sluice/limiter"
)

// clock is a store's clock that a test moves.
type clock struct{ at time.Duration }

func (c *clock) now() time.Duration { return c.at }

// loneStore is a store with one key that has heard of some nodes and hears nothing now: there is no Redis.
func loneStore(c *clock, nodes int64, limits Limits) (*Store, *Key) {
	s := &Store{now: c.now, byHash: xsync.NewMap[Hash, *Key](), byID: xsync.NewMap[string, *Key]()}
	r := newShared(s, nil, slog.New(slog.DiscardHandler))
	era := "1"
	r.era.Store(&era)
	r.roster.hear(c.at, nodes, -1, false)
	r.nodes.Store(nodes)
	s.index(&Spec{ID: "key_x", Name: "x", Limits: limits}, Hash{}, 1)
	k, _ := s.Get("key_x")
	return s, k
}

func (s *Store) loseAt(at time.Duration) {
	s.shared.away.Store(true)
	s.shared.lostAt.Store(int64(at))
}

const day = Period(24 * time.Hour)

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
			s, k := loneStore(c, test.nodes, Limits{Requests: &test.limit, Tokens: &test.limit, Period: ptr(day)})
			if test.left {
				s.shared.roster.left.Store(int64(c.at - time.Minute))
			}
			lend(s, k.ofRequests, test.spent)
			lend(s, k.ofTokens, test.spent)
			for range test.spent {
				k.Admit(c.at)
				k.Reserve(c.at, 1)
			}
			s.loseAt(c.at)
			requests, tokens := int64(0), int64(0)
			var state, tokenState limiter.State
			for admitted := true; admitted; requests++ {
				state, admitted, _ = k.Admit(c.at)
			}
			for admitted := true; admitted; tokens++ {
				_, tokenState, admitted, _ = k.Reserve(c.at, 1)
			}
			if requests--; requests != test.want {
				t.Errorf("%d requests, want %d", requests, test.want)
			}
			if tokens--; tokens != test.want {
				t.Errorf("%d tokens, want %d", tokens, test.want)
			}
			for name, state := range map[string]limiter.State{"requests": state, "tokens": tokenState} {
				if none := test.limit < test.nodes || test.left && test.limit == 1; state.Uncounted != none {
					t.Errorf("%s: a refusal is called unknown: %t", name, state.Uncounted)
				}
				if state.RetryAfter <= 0 || state.RetryAfter > soonAgain || state.Remaining != 0 {
					t.Errorf("%s: %+v", name, state)
				}
			}
			if left, _ := k.Left(c.at); left.Remaining != 0 {
				t.Errorf("it is said that %d are left", left.Remaining)
			}
			if left, admitted, _ := k.LeftTokens(c.at, 1); left.Remaining != 0 || admitted {
				t.Errorf("it is said that %d tokens are left", left.Remaining)
			}
			if said := k.ofRequests.extra.Load(); said != test.want {
				t.Errorf("%d requests are to be said, want %d", said, test.want)
			}
			// A new era: all is declared, and no part of it is said besides.
			for _, one := range s.shared.leases.spendings("2") {
				if one.amount != test.spent+test.want {
					t.Errorf("%d is declared, want %d", one.amount, test.spent+test.want)
				}
			}
			if n := k.ofRequests.extra.Load() + k.ofTokens.extra.Load(); n != 0 {
				t.Errorf("%d is said twice", n)
			}
		})
	}
}

// lend gives a node a lease, as Redis would.
func lend(s *Store, of *share, amount int64) {
	of.begin(limiter.NewLease(amount, s.now()+5*time.Second, 0, of.term.Load()), amount)
}

// TestLargeRequestWithoutRedis: one that needs more tokens than the node's part is not told that the limit is reached.
func TestLargeRequestWithoutRedis(t *testing.T) {
	c := &clock{time.Hour}
	s, k := loneStore(c, 3, Limits{Tokens: ptr(int64(300)), Period: ptr(day)})
	s.loseAt(c.at)
	if _, state, admitted, _ := k.Reserve(c.at, 101); admitted || !state.Uncounted {
		t.Errorf("%t, %+v", admitted, state)
	}
	if state, admitted, _ := k.LeftTokens(c.at, 101); admitted || !state.Uncounted {
		t.Errorf("%t, %+v", admitted, state)
	}
	if _, _, admitted, _ := k.Reserve(c.at, 100); !admitted {
		t.Error("its part is refused")
	}
}

// TestStrictWithoutRedis: nothing for a period, then the node's part.
func TestStrictWithoutRedis(t *testing.T) {
	c := &clock{time.Hour}
	s, k := loneStore(c, 3, Limits{Requests: ptr(int64(9)), Period: ptr(Period(time.Minute))})
	s.HoldStrictly(true)
	s.loseAt(c.at)
	begin := c.at
	for ; c.at < begin+time.Minute+leaseTime(time.Minute); c.at += time.Second / 2 {
		if state, admitted, _ := k.Admit(c.at); admitted || !state.Uncounted {
			t.Fatalf("%s: %t, %+v", c.at-begin, admitted, state)
		}
	}
	for range 3 {
		if _, admitted, _ := k.Admit(c.at); !admitted {
			t.Error("its part is refused")
		}
	}
	if _, admitted, _ := k.Admit(c.at); admitted {
		t.Error("more than its part")
	}
	s.HoldStrictly(false)
	s.loseAt(c.at)
	c.at += 2 * time.Minute
	if _, admitted, _ := k.Admit(c.at); !admitted {
		t.Error("the rule does not change")
	}
}

// TestSettledWithoutRedis: of tokens that were reserved while nobody counted, what was used is said, once.
func TestSettledWithoutRedis(t *testing.T) {
	c := &clock{time.Hour}
	s, k := loneStore(c, 3, Limits{Tokens: ptr(int64(300)), Period: ptr(day)})
	s.loseAt(c.at)
	for _, test := range []struct{ reserved, used, declared, extra int64 }{
		{reserved: 40, used: 10, extra: 10},
		{reserved: 10, used: 15, extra: 15},
		{reserved: 20, used: 0, extra: 0},
		{reserved: 10, used: 15, declared: 35, extra: 5}, // the 10 were declared as spent, with the 25 of above
	} {
		charge, _, admitted, _ := k.Reserve(c.at, test.reserved)
		if !admitted {
			t.Fatal("refused")
		}
		if test.declared > 0 {
			if all := s.shared.leases.spendings("2"); len(all) != 1 || all[0].amount != test.declared {
				t.Errorf("%+v is declared, want %d", all, test.declared)
			}
		}
		charge.Settle(c.at, test.used)
		if say, _, _ := k.ofTokens.reported(window{time.Duration(day), 300}); say.extra != test.extra {
			t.Errorf("%+v: %d is said", test, say.extra)
		}
	}
}

// TestSaidWhereTheEraHasChanged: what is reported in an era that has ended is said again, unless it was declared.
func TestSaidWhereTheEraHasChanged(t *testing.T) {
	c := &clock{time.Hour}
	s, k := loneStore(c, 1, Limits{Requests: ptr(int64(300)), Period: ptr(day)})
	s.loseAt(c.at)
	w := window{time.Duration(day), 300}
	k.Admit(c.at)
	say, _, term := k.ofRequests.reported(w)
	k.ofRequests.unreported(w, say, term)
	if n := k.ofRequests.extra.Load(); n != 1 {
		t.Errorf("%d to be said again", n)
	}
	say, _, term = k.ofRequests.reported(w)
	if all := s.shared.leases.spendings("2"); len(all) != 1 || all[0].amount != 1 {
		t.Errorf("%+v", all)
	}
	k.ofRequests.unreported(w, say, term)
	if n := k.ofRequests.extra.Load(); n != 0 {
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
		if o.hear(step.at, step.nodes, -1, step.broken); o.most.Load() != step.want {
			t.Errorf("step %d: %d nodes, want %d", i, o.most.Load(), step.want)
		}
	}
	o.hear(2*time.Hour, 1, time.Minute, false)
	o.hear(2*time.Hour, 1, -1, true) // Redis was emptied, and knows of nobody who went
	if at := time.Duration(o.left.Load()); at != 2*time.Hour-time.Minute {
		t.Errorf("a node went at %s", at)
	}
}

// TestUncountedAllocatesNothing: a request that a node admits or refuses by itself costs no memory.
func TestUncountedAllocatesNothing(t *testing.T) {
	c := &clock{time.Hour}
	s, k := loneStore(c, 2, Limits{Requests: ptr(int64(400)), Tokens: ptr(int64(400)), Period: ptr(day)})
	s.loseAt(c.at)
	k.Admit(c.at) // the first is noted
	admitted := 0
	if n := testing.AllocsPerRun(500, func() {
		charge, _, _, _ := k.Reserve(c.at, 1)
		charge.Settle(c.at, 1)
		if _, ok, _ := k.Admit(c.at); ok {
			admitted++
		}
		k.Left(c.at)
		k.LeftTokens(c.at, 1)
	}); n != 0 || admitted != 199 {
		t.Errorf("%v allocations, %d admitted", n, admitted)
	}
}
