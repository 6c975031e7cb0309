package shared

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"sluice/keys"
)

// Put implements keys.Keeper. Nobody else may have changed the key since rev.
func (r *redis) Put(rec *keys.Record, rev uint64) (uint64, error) {
	value, err := json.Marshal(rec)
	if err != nil {
		return 0, err
	}
	return r.change(rec.ID, rev, string(value))
}

// Remove implements keys.Keeper.
func (r *redis) Remove(id string, rev uint64) error {
	_, err := r.change(id, rev, "")
	return err
}

// change writes a key, or with an empty value deletes it. Its caller is the only one that changes keys.
func (r *redis) change(id string, rev uint64, value string) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), changeWait)
	defer cancel()
	version, err := changeScript.Exec(ctx, r.client, []string{redisRecords, redisVersion, redisChanged, redisDeleted},
		[]string{id, strconv.FormatUint(rev, 10), value, strconv.FormatUint(r.newest(), 10), strconv.Itoa(r.kept)}).AsInt64()
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", keys.ErrUnavailable, err)
	case version == -1:
		return 0, keys.ErrConflict
	case version < 0:
		return 0, fmt.Errorf("%w: it has lost changes and is being given them back", keys.ErrUnavailable)
	}
	r.own.Store(uint64(version))
	return uint64(version), nil
}
