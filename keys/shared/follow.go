package shared

import (
	"context"
	"slices"
	"strconv"

	"sluice/keys"
)

// follow deals with what was heard: a new era, another lineage, another version.
func (r *redis) follow(ctx context.Context) error {
	if era := r.newEra.Load(); era != nil && *era != *r.era.Load() {
		// What was spent of late is not counted in it yet. Until it is, nothing is leased here.
		if err := r.declare(ctx, *era); err != nil {
			return err
		}
		r.era.Store(era)
		r.log.Warn("a new era of the shared key store: it is another process or was emptied, or a node was cut off; "+
			"until leases are given in it, "+r.rule(), "without_store", rules[r.strict.Load()])
	}
	if r.stray.Load() {
		return r.merge(ctx)
	}
	if missed := r.missed.Load(); missed > 0 && missed == r.newest() { // else what was heard is of another time
		return r.restore(ctx, missed)
	}
	if r.version.Load() > r.seen.Load() {
		return r.sync(ctx)
	}
	return nil
}

// newest is the newest version that this node knows of.
func (r *redis) newest() uint64 { return max(r.seen.Load(), r.own.Load()) }

// sync reads what has changed.
func (r *redis) sync(ctx context.Context) error {
	r.syncing.Lock()
	defer r.syncing.Unlock()
	from, whole := r.seen.Load(), false
	for {
		known := r.newest()
		answer, err := r.since(ctx, from)
		if err != nil {
			return err
		}
		if answer.version < known { // it has lost something: what it has is not to be believed
			return r.restore(ctx, known)
		}
		if answer.unsure && !whole && !r.stray.Load() {
			// What there is must be compared with all that is here.
			if err := r.forgetUnknown(ctx); err != nil {
				return err
			}
			from, whole = 0, true
			continue
		}
		if err := r.apply(answer, whole); err != nil {
			return err
		}
		if from = answer.upTo; len(answer.records) < 3*batch {
			return nil
		}
	}
}

// news is what has changed.
type news struct {
	version, upTo uint64
	unsure        bool // what was deleted is not all among deleted
	deleted       []string
	records       []string // id, version, record
}

// since asks what has changed after a version.
func (r *redis) since(ctx context.Context, from uint64) (n news, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	answer, err := sinceScript.Exec(ctx, r.client, []string{redisRecords, redisVersion, redisChanged, redisDeleted},
		[]string{strconv.FormatUint(from, 10), strconv.Itoa(batch), strconv.Itoa(r.kept)}).AsStrSlice()
	if err != nil {
		return n, err
	}
	if len(answer) < 4 {
		return n, errAnswer
	}
	version, verr := strconv.ParseUint(answer[0], 10, 64)
	upTo, uerr := strconv.ParseUint(answer[1], 10, 64)
	gone, gerr := strconv.Atoi(answer[3])
	if verr != nil || uerr != nil || gerr != nil || len(answer) < 4+gone || (len(answer)-4-gone)%3 != 0 {
		return n, errAnswer
	}
	n = news{version: version, upTo: upTo, deleted: answer[4 : 4+gone], records: answer[4+gone:]}
	n.unsure = answer[2] == "1" || slices.Contains(n.deleted, everything)
	return n, nil
}

// apply has news take effect. If they are of the whole store, a key goes back to an older revision
// too: it was written there after something had been lost.
func (r *redis) apply(n news, whole bool) error {
	return r.store.Exclusively(func(c keys.Changes) error {
		for _, id := range n.deleted {
			if k, err := r.store.Get(id); err == nil {
				c.Forget(k)
			}
		}
		for i := 0; i < len(n.records); i += 3 {
			id, value := n.records[i], n.records[i+2]
			rev, err := strconv.ParseUint(n.records[i+1], 10, 64)
			if err != nil {
				return errAnswer
			}
			if r.knows(c, id, rev, whole, n.version) {
				continue
			}
			if err := c.Load(id, []byte(value), rev); err != nil {
				r.log.Error("a key of the shared store cannot be used", "id", id, "error", err)
			}
		}
		r.seen.Store(max(r.seen.Load(), n.upTo))
		return nil
	})
}

// knows reports whether the index has a key at revision rev, or at this node's own change since.
func (r *redis) knows(c keys.Changes, id string, rev uint64, whole bool, version uint64) bool {
	k, err := r.store.Get(id)
	if err != nil {
		return false
	}
	known := c.Revision(k)
	return known == rev || known > rev && !(whole && known <= version)
}

// forgetUnknown drops keys that the store does not have: it has forgotten when they were deleted.
func (r *redis) forgetUnknown(ctx context.Context) error {
	return r.store.Exclusively(func(c keys.Changes) error { // or a key that is made meanwhile would be unknown
		ids, err := r.client.Do(ctx, r.client.B().Hkeys().Key(redisRecords).Build()).AsStrSlice()
		if err != nil {
			return err
		}
		there := make(map[string]bool, len(ids))
		for _, id := range ids {
			there[id] = true
		}
		for k := range r.store.All() {
			if !there[k.Spec().ID] {
				c.Forget(k)
			}
		}
		return nil
	})
}
