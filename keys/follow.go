package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// follow deals with what was heard: a new era, another lineage, another version.
func (r *shared) follow(ctx context.Context) error {
	if era := r.newEra.Load(); era != nil && *era != *r.era.Load() {
		// What was spent of late is not counted in it. Until it is, nothing is leased here.
		if err := r.leases.declare(ctx, *era); err != nil {
			return err
		}
		r.era.Store(era)
		r.log.Warn("a new era of the shared key store: it is another process or was emptied, or a node was cut off; until leases are given in it, "+r.rule(), "without_store", rules[r.strict.Load()])
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

// offer writes a key that the store lacks, unless it has been deleted there or here meanwhile.
func (r *shared) offer(k *Key) (err error) {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if now, known := r.store.byID.Load(k.Spec().ID); known && now == k && k.rev == 0 {
		k.rev, err = r.put(k.record(), 0)
	}
	return err
}

// newest is the newest version that this node knows of.
func (r *shared) newest() uint64 { return max(r.seen.Load(), r.own.Load()) }

// merge is for a store that has begun anew while this node was not looking: what it has is taken, and what this node
// knows besides is written there.
func (r *shared) merge(ctx context.Context) error {
	r.log.Error("the shared key store has begun anew; it is given the keys that it lacks")
	var old []*Key
	r.store.mu.Lock()
	r.store.byID.Range(func(_ string, k *Key) bool {
		k.rev = 0
		old = append(old, k)
		return true
	})
	r.seen.Store(0)
	r.own.Store(0)
	r.store.mu.Unlock()
	if err := r.sync(ctx); err != nil {
		return err
	}
	for _, k := range old {
		if err := r.offer(k); err != nil && !errors.Is(err, ErrConflict) { // another node was first
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	r.missed.Store(0)
	r.stray.Store(false)
	return nil
}

// sync reads what has changed.
func (r *shared) sync(ctx context.Context) error {
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
func (r *shared) since(ctx context.Context, from uint64) (n news, err error) {
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

// apply has news take effect. If they are of the whole store, a key goes back to an older revision too: it was written
// there after something had been lost.
func (r *shared) apply(n news, whole bool) error {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	for _, id := range n.deleted {
		if k, ok := r.store.byID.Load(id); ok {
			r.store.forget(k)
		}
	}
	for i := 0; i < len(n.records); i += 3 {
		id, value := n.records[i], n.records[i+2]
		rev, err := strconv.ParseUint(n.records[i+1], 10, 64)
		if err != nil {
			return errAnswer
		}
		if k, ok := r.store.byID.Load(id); ok && (k.rev == rev || k.rev > rev && !(whole && k.rev <= n.version)) {
			continue // known, or this node's own change since
		}
		if err := r.store.load(id, []byte(value), rev); err != nil {
			r.log.Error("a key of the shared store cannot be used", "id", id, "error", err)
		}
	}
	r.seen.Store(max(r.seen.Load(), n.upTo))
	return nil
}

// forgetUnknown drops keys that the store does not have: it has forgotten when they were deleted.
func (r *shared) forgetUnknown(ctx context.Context) error {
	r.store.mu.Lock() // or a key that is made meanwhile would be unknown
	defer r.store.mu.Unlock()
	ids, err := r.client.Do(ctx, r.client.B().Hkeys().Key(redisRecords).Build()).AsStrSlice()
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	r.store.byID.Range(func(id string, k *Key) bool {
		if !there[id] {
			r.store.forget(k)
		}
		return true
	})
	return nil
}

// restore gives the store back what it has lost: it is at an older version than this node has seen.
func (r *shared) restore(ctx context.Context, seen uint64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r.log.Error("the shared key store has lost changes; it is given what this node knows", "version", seen)
	gathered := "sluice:restore:" + r.node
	r.store.mu.Lock()
	var commands rueidis.Commands
	commands = append(commands, r.client.B().Del().Key(gathered).Build())
	var err error
	r.store.byID.Range(func(id string, k *Key) bool {
		var value []byte
		if value, err = json.Marshal(k.record()); err != nil {
			return false
		}
		commands = append(commands, r.client.B().Hset().Key(gathered).FieldValue().FieldValue(id, fmt.Sprintf("%d %s", k.rev, value)).Build())
		return true
	})
	r.store.mu.Unlock()
	if err != nil {
		return err
	}
	commands = append(commands, r.client.B().Expire().Key(gathered).Seconds(600).Build())
	for _, answer := range r.client.DoMulti(ctx, commands...) {
		if err := answer.Error(); err != nil {
			return err
		}
	}
	return restoreScript.Exec(ctx, r.client, []string{redisRecords, redisVersion, redisChanged, redisDeleted, gathered},
		[]string{strconv.FormatUint(seen, 10), everything}).Error()
}
