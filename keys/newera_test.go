package keys

import (
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// TestNewEraIsNoLimit: until leases are given in a new era, a refusal says that nobody knows what is
// left, and not that the limit is reached. When it is reached, a refusal says that.
func TestNewEraIsNoLimit(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	node := openNode(t, redis.URL())
	made, _ := create(t, node.Store, Spec{Name: "x", Limits: Limits{
		Requests: ptr(int64(20)), Tokens: ptr(int64(20)), Period: ptr(Period(time.Hour))}})
	k, err := node.Get(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	requests := func() (admitted, unknown bool) {
		state, admitted, _ := k.Admit(node.now())
		return admitted, state.Uncounted
	}
	tokens := func() (admitted, unknown bool) {
		c, state, admitted, _ := k.Reserve(node.now(), 1)
		c.Settle(node.now(), 1)
		return admitted, state.Uncounted
	}
	for name, spend := range map[string]func() (bool, bool){"requests": requests, "tokens": tokens} {
		if admitted, _ := spend(); !admitted {
			t.Fatalf("the first of %s is refused", name)
		}
		redis.Command("FLUSHALL")
		seen := 0
		eventually(t, "the new era opens for "+name, func() bool {
			admitted, unknown := spend()
			if !admitted && !unknown {
				t.Fatalf("a new era counts as the end of %s", name)
			}
			if !admitted {
				seen++
			}
			return admitted && seen > 0
		})
		left := 20
		for admitted, unknown := spend(); ; admitted, unknown = spend() {
			if left--; left < 0 {
				t.Fatalf("more %s than there are", name)
			}
			if !admitted {
				if unknown {
					t.Errorf("the limit of %s is reached, and is called unknown", name)
				}
				break
			}
		}
	}
}
