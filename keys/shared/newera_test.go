package shared

import (
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/keys"
)

// TestNewEraIsNoLimit: until leases are given in a new era, a refusal says that nobody knows what is
// left, and not that the limit is reached. When it is reached, a refusal says that.
func TestNewEraIsNoLimit(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	node := openNode(t, redis.URL())
	limits := map[string]keys.Limits{"requests": {Requests: ptr(int64(20))}, "tokens": {Tokens: ptr(int64(20))}}
	for name, l := range limits {
		l.Period = ptr(keys.Period(time.Hour))
		made, _ := create(t, node.Store, keys.Spec{Name: name, Limits: l})
		k, err := node.Get(made.ID)
		if err != nil {
			t.Fatal(err)
		}
		spend := func() (admitted, unknown bool) {
			c, state, admitted := reserve(k, node.r.now(), 1)
			c.settle(node.r.now(), 1)
			return admitted, state.Uncounted
		}
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
		eventually(t, "a refusal says that the limit of "+name+" is reached", func() bool {
			admitted, unknown := spend()
			if admitted {
				left--
			}
			return !admitted && !unknown // unknown: Redis has not answered in time
		})
		if left < 0 {
			t.Errorf("more %s than there are", name)
		}
	}
}
