package shared

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"sluice/keys"
)

// merge is for a Redis that has begun anew while this node was not looking. What it has is taken,
// and what this node knows besides is written there.
func (r *redis) merge(ctx context.Context) error {
	r.log.Error("the shared key store has begun anew; it is given the keys that it lacks")
	old := r.forgetRevisions()
	if err := r.sync(ctx); err != nil {
		return err
	}
	for _, k := range old {
		if err := r.offer(k); err != nil && !errors.Is(err, keys.ErrConflict) { // another node was first
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

// forgetRevisions has all keys be such as Redis does not have, and returns them.
func (r *redis) forgetRevisions() (all []*keys.Key) {
	_ = r.store.Exclusively(func(c keys.Changes) error {
		for k := range r.store.All() {
			c.SetRevision(k, 0)
			all = append(all, k)
		}
		r.seen.Store(0)
		r.own.Store(0)
		return nil
	})
	return all
}

// offer writes a key that Redis lacks, unless it has been deleted there or here meanwhile.
func (r *redis) offer(k *keys.Key) error {
	return r.store.Exclusively(func(c keys.Changes) error {
		now, err := r.store.Get(k.Spec().ID)
		switch {
		case errors.Is(err, keys.ErrNotFound):
			return nil
		case err != nil:
			return err
		case now != k, c.Revision(k) != 0:
			return nil
		}
		return c.Keep(k)
	})
}

// restore gives Redis back what it has lost: it is at an older version than this node has seen.
func (r *redis) restore(ctx context.Context, seen uint64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r.log.Error("the shared key store has lost changes; it is given what this node knows", "version", seen)
	gathered := "sluice:restore:" + r.node
	commands, err := r.gather(gathered)
	if err != nil {
		return err
	}
	for _, answer := range r.client.DoMulti(ctx, commands...) {
		if err := answer.Error(); err != nil {
			return err
		}
	}
	return restoreScript.Exec(ctx, r.client, []string{redisRecords, redisVersion, redisChanged, redisDeleted, gathered},
		[]string{strconv.FormatUint(seen, 10), everything}).Error()
}

// gather are the commands that write all keys to a hash of that name, as restoreScript wants them.
func (r *redis) gather(hash string) (commands rueidis.Commands, err error) {
	commands = append(commands, r.client.B().Del().Key(hash).Build())
	err = r.store.Exclusively(func(c keys.Changes) error {
		for k := range r.store.All() {
			value, err := c.Record(k)
			if err != nil {
				return err
			}
			commands = append(commands, r.client.B().Hset().Key(hash).FieldValue().
				FieldValue(k.Spec().ID, fmt.Sprintf("%d %s", c.Revision(k), value)).Build())
		}
		return nil
	})
	return append(commands, r.client.B().Expire().Key(hash).Seconds(600).Build()), err
}
