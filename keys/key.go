package keys

import (
	"encoding/hex"
	"sync/atomic"
	"time"

	"sluice/limiter"
)

// Key is a gateway key in memory, the same for as long as the process knows the id.
type Key struct {
	// Gate bounds how many requests of the key are in flight.
	Gate limiter.Gate

	spec   atomic.Pointer[Spec]
	meters []Meter // in the order of limits

	hash Hash // these two guarded by Store.mu
	rev  uint64
}

// Spec is what is known of the key now.
func (k *Key) Spec() *Spec { return k.spec.Load() }

// Meters are what counts the key's limits, also those that it does not have, in the order of MeterNames.
func (k *Key) Meters() []Meter { return k.meters }

// Unsettled is how many charges are to be settled.
func (k *Key) Unsettled() (n int64) {
	for i := range k.meters {
		if c := k.meters[i].counted.Load(); c != nil {
			n += c.Open()
		}
	}
	return n
}

// Used is how much of its limits the key has used, by their names; nil without a limit.
func (k *Key) Used(now time.Duration) (used map[string]int64) {
	for i := range k.meters {
		if s, limited := k.meters[i].Left(now); limited {
			if used == nil {
				used = map[string]int64{}
			}
			used[k.meters[i].Name()] = s.Limit - s.Remaining
		}
	}
	return used
}

// set makes spec take effect. What is counted stays counted.
func (k *Key) set(spec *Spec, now time.Duration) {
	k.spec.Store(spec)
	concurrent := int64(0)
	if spec.Limits.Concurrent != nil {
		concurrent = *spec.Limits.Concurrent
	}
	k.Gate.SetLimit(concurrent)
	for i := range k.meters {
		m := &k.meters[i]
		m.set(m.limit.rule(&spec.Limits), now)
	}
}

// record is the key as it is kept.
func (k *Key) record() *Record { return &Record{Spec: *k.Spec(), Hash: hex.EncodeToString(k.hash[:])} }
