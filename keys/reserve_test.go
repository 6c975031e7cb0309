package keys

import (
	"path/filepath"
	"testing"
	"time"

	"sluice/limiter"
)

// use is the Demand of a request that needs so many tokens, and uses them.
type use int64

func (u use) TokensNeeded() int64     { return int64(u) }
func (u use) TokensUsed(int64) int64  { return int64(u) }
func (u use) TokensNote(int64) string { return "" }

// admit has the key asked for one request that needs no tokens.
func admit(k *Key) bool {
	var r Reservation
	defer r.Settle(0, use(0))
	return k.Reserve(0, use(0), &r) == nil
}

// left is what is left of one of the key's limits.
func left(k *Key, limit string) (limiter.State, bool) {
	for i := range k.Meters() {
		if m := &k.Meters()[i]; m.Name() == limit {
			return m.Left(0)
		}
	}
	panic("no limit is called " + limit)
}

func limitedKey(t *testing.T, requests, tokens int64) *Key {
	t.Helper()
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	_, secret := create(t, s, Spec{Name: "x", Limits: Limits{Requests: &requests, Tokens: &tokens}})
	return s.Lookup([]byte(secret))
}

func (k *Key) want(t *testing.T, requests, tokens, unsettled int64) {
	t.Helper()
	r, _ := left(k, "requests")
	u, _ := left(k, "tokens")
	if r.Remaining != requests || u.Remaining != tokens || k.Unsettled() != unsettled {
		t.Errorf("%d requests and %d tokens are left and %d charges open, want %d, %d and %d",
			r.Remaining, u.Remaining, k.Unsettled(), requests, tokens, unsettled)
	}
}

// TestAllMetersOrNone: a request that one meter has no room for takes nothing of the others, and
// what was reserved is settled once.
func TestAllMetersOrNone(t *testing.T) {
	k := limitedKey(t, 2, 100)
	var first, second, third Reservation
	if e := k.Reserve(0, use(40), &first); e != nil {
		t.Fatalf("%+v", e)
	}
	k.want(t, 1, 60, 1)
	if e := k.Reserve(0, use(61), &second); e == nil || e.Name() != "tokens" || e.State.Remaining != 60 || e.Rule().Limit != 100 {
		t.Errorf("%+v", e)
	}
	k.want(t, 1, 60, 1) // a refusal for tokens has taken no request
	if e := k.Peek(0, use(61), &second); e == nil || e.Name() != "tokens" {
		t.Errorf("%+v", e)
	}
	if e := k.Reserve(0, use(0), &second); e != nil { // needs nothing, and is settled all the same
		t.Fatalf("%+v", e)
	}
	k.want(t, 0, 60, 2)
	if e := k.Reserve(0, use(10), &third); e == nil || e.Name() != "requests" {
		t.Errorf("%+v", e)
	}
	k.want(t, 0, 60, 2) // a refusal for requests has taken no tokens
	if e := k.Peek(0, use(10), &third); e == nil || e.Name() != "requests" {
		t.Errorf("%+v", e)
	}
	third.Settle(0, use(10)) // there is nothing to settle
	k.want(t, 0, 60, 2)
	first.Settle(0, use(15))
	second.Settle(0, use(5))
	k.want(t, 0, 80, 0)
	first.Settle(0, use(99))
	k.want(t, 0, 80, 0)
}

// TestOnlyTheLastChargedCannotGiveBack: admission would not be all or nothing if another could not.
func TestOnlyTheLastChargedCannotGiveBack(t *testing.T) {
	for i, l := range metered[1:] {
		c := l.counter(limiter.Rule{Limit: 10, Period: time.Minute}, 0)
		var charge limiter.Charge
		admitted := c.Take(&charge, new(limiter.State), 0, 4, limiter.MaxLimit)
		charge.Settle(0, 0)
		if s, _ := c.Peek(0, 0, limiter.MaxLimit); !admitted || s.Remaining != 10 {
			t.Errorf("%s, at place %d of the list, does not give back: %+v", l.name, i+1, s)
		}
	}
}

// TestReservationIsNotAllocated: nor is a refusal.
func TestReservationIsNotAllocated(t *testing.T) {
	k := limitedKey(t, 500, 1_000_000)
	var r Reservation
	admitted := 0
	if n := testing.AllocsPerRun(1000, func() {
		if k.Reserve(0, use(3), &r) == nil {
			admitted++
		}
		r.Settle(0, use(2))
		k.Peek(0, use(3), &r)
		r.Reset()
	}); n != 0 || admitted != 500 {
		t.Errorf("%v allocations, %d admitted", n, admitted)
	}
}

// TestStateOfAReservation: what was found for the request is shown, and for what was not asked what is now.
func TestStateOfAReservation(t *testing.T) {
	k := limitedKey(t, 5, 100)
	var r Reservation
	k.Reserve(0, use(200), &r) // no more than the limit
	for i, want := range []int64{4, 0} {
		if s, limited := r.Left(&k.Meters()[i], 0); !limited || s.Remaining != want {
			t.Errorf("%s: %+v", k.Meters()[i].Name(), s)
		}
	}
	r.Settle(0, use(20))
	k.Reserve(0, use(90), &r)
	for i, want := range []int64{4, 80} {
		if s, limited := r.Left(&k.Meters()[i], 0); !limited || s.Remaining != want {
			t.Errorf("%s: %+v", k.Meters()[i].Name(), s)
		}
	}
}
