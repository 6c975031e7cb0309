package shared

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/upstreamtest"
	"sluice/keys"
	"sluice/limiter"
)

func TestMain(m *testing.M) {
	// Parallel tests wait for leases and for Redis; they need no processor each. A flag of the command counts.
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// quickPace is normalPace, twice as fast. A busy machine takes as long to answer.
var quickPace = pace{beat: normalPace.beat / 2, answer: normalPace.answer,
	cutOff: normalPace.cutOff / 2, settle: normalPace.settle / 2, missed: normalPace.missed}

// testNode is a node at a Redis, with a clock of its own.
type testNode struct {
	*keys.Store
	r    *redis
	log  *upstreamtest.Buffer
	dead *atomic.Bool
}

func openNode(t testing.TB, url string) testNode { return openNodeAt(t, url, 0) }

// openNodeAt is openNode, whose rule without Redis is strict, with a clock that began a while ago.
func openNodeAt(t testing.TB, url string, ago time.Duration) testNode {
	t.Helper()
	began := time.Now().Add(-ago)
	log := &upstreamtest.Buffer{}
	r, err := openRedis(url, func() time.Duration { return time.Since(began) }, slog.New(slog.NewTextHandler(log, nil)), quickPace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	r.HoldStrictly(true)
	return testNode{r.store, r, log, new(atomic.Bool)}
}

func create(t testing.TB, s *keys.Store, spec keys.Spec) (*keys.Spec, string) {
	t.Helper()
	made, secret, err := s.Create(spec)
	if err != nil {
		t.Fatal(err)
	}
	return made, secret
}

func ptr[T any](v T) *T { return &v }

// charge is a request that needs some tokens, and will have used some.
type charge struct {
	keys.Reservation
	needs, used int64
}

func (c *charge) TokensNeeded() int64     { return c.needs }
func (c *charge) TokensUsed(int64) int64  { return c.used }
func (c *charge) TokensNote(int64) string { return "" }

func (c *charge) settle(now time.Duration, used int64) {
	c.used = used
	c.Reservation.Settle(now, c)
}

// reserve asks the key for a request that needs so many tokens. state is that of the limit that
// refuses, or of the key's first.
func reserve(k *keys.Key, now time.Duration, tokens int64) (c *charge, state limiter.State, admitted bool) {
	c = &charge{needs: tokens}
	if refused := k.Reserve(now, c, &c.Reservation); refused != nil {
		return c, refused.State, false
	}
	for i := range k.Meters() {
		if _, limited := k.Meters()[i].Rule(); limited {
			state, _ = c.Left(&k.Meters()[i], now)
			break
		}
	}
	return c, state, true
}

// ask has the key admit a request that needs no tokens.
func ask(k *keys.Key, now time.Duration) (state limiter.State, admitted bool) {
	c, state, admitted := reserve(k, now, 0)
	c.settle(now, 0)
	return state, admitted
}

func admit(k *keys.Key, now time.Duration) bool {
	_, admitted := ask(k, now)
	return admitted
}

// peek is what the key would say to a request that needs so many tokens.
func peek(k *keys.Key, now time.Duration, tokens int64) (state limiter.State, admitted bool) {
	c := &charge{needs: tokens}
	if refused := k.Peek(now, c, &c.Reservation); refused != nil {
		return refused.State, false
	}
	return limiter.State{}, true
}

func meterOf(k *keys.Key, limit string) *keys.Meter {
	for i := range k.Meters() {
		if m := &k.Meters()[i]; m.Name() == limit {
			return m
		}
	}
	panic("no limit is called " + limit)
}

func shareOf(k *keys.Key, limit string) *share { return meterOf(k, limit).Share().(*share) }

// clock is a clock that a test moves.
type clock struct{ at time.Duration }

func (c *clock) now() time.Duration { return c.at }

// lone is a node that has heard of some nodes and hears nothing now: there is no Redis.
type lone struct {
	*keys.Store
	r *redis
}

func newLone(c *clock, nodes int64) lone {
	r := newRedis(c.now, nil, slog.New(slog.DiscardHandler), normalPace)
	era := "1"
	r.era.Store(&era)
	r.roster.hear(c.at, nodes, -1, false, normalPace.missed)
	r.nodes.Store(nodes)
	return lone{r.store, r}
}

// add has the node know a key.
func (n lone) add(t testing.TB, id string, limits keys.Limits) *keys.Key {
	t.Helper()
	id = "key_" + id
	hash := sha256.Sum256([]byte(id))
	value, err := json.Marshal(keys.Record{Spec: keys.Spec{ID: id, Name: "x", Limits: limits}, Hash: hex.EncodeToString(hash[:])})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Exclusively(func(c keys.Changes) error { return c.Load(id, value, 1) }); err != nil {
		t.Fatal(err)
	}
	k, err := n.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (n lone) loseAt(at time.Duration) {
	n.r.away.Store(true)
	n.r.lostAt.Store(int64(at))
}

// lend gives a node a lease, as Redis would.
func lend(of *share, amount int64) {
	now := of.of.of.now()
	of.begin(limiter.NewLease(amount, now+5*time.Second, 0, of.term.Load()), amount)
}
