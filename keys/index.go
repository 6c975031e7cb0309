package keys

import (
	"encoding/json"
	"iter"
	"slices"
	"time"
)

// What is read of the index takes no lock, and may be called at any time.

// Count is how many keys there are.
func (s *Store) Count() int { return s.byID.Size() }

// States is how many keys are active, disabled and expired at now.
func (s *Store) States(now time.Time) map[string]int {
	n := map[string]int{"active": 0, "disabled": 0, "expired": 0}
	s.byID.Range(func(_ string, k *Key) bool {
		n[k.Spec().state(now)]++
		return true
	})
	return n
}

// Lookup returns the key with that secret, usable or not, nil without one. It does not
// allocate, and how long it takes tells nothing of how near the secret is to another:
// what is compared are hashes.
func (s *Store) Lookup(secret []byte) *Key {
	hash, ok := hashOf(secret)
	if !ok {
		return nil
	}
	k, _ := s.byHash.Load(hash)
	return k
}

// Get returns the key with that id.
func (s *Store) Get(id string) (*Key, error) {
	k, ok := s.byID.Load(id)
	if !ok {
		return nil, ErrNotFound
	}
	return k, nil
}

// List returns up to limit keys in the order they were made, beginning after the id
// after, and whether there are more.
func (s *Store) List(limit int, after string) (keys []*Key, more bool) {
	var ids []string
	s.byID.Range(func(id string, _ *Key) bool {
		if id > after {
			ids = append(ids, id)
		}
		return true
	})
	slices.Sort(ids)
	for _, id := range ids {
		if len(keys) == limit {
			return keys, true
		}
		if k, ok := s.byID.Load(id); ok {
			keys = append(keys, k)
		}
	}
	return keys, false
}

// All are the keys, in no order.
func (s *Store) All() iter.Seq[*Key] {
	return func(yield func(*Key) bool) {
		s.byID.Range(func(_ string, k *Key) bool { return yield(k) })
	}
}

// Changes are what a keeper may do to the index while nobody else changes a key. They are of no
// use after the function that got them has returned.
type Changes struct{ store *Store }

// Exclusively has f be the only one that changes keys.
func (s *Store) Exclusively(f func(Changes) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(Changes{s})
}

// Load has a record take effect.
func (c Changes) Load(id string, value []byte, rev uint64) error { return c.store.load(id, value, rev) }

// Forget has a key be unknown.
func (c Changes) Forget(k *Key) { c.store.forget(k) }

// Revision is the revision of the key's record, 0 for one that is not kept.
func (c Changes) Revision(k *Key) uint64 { return k.rev }

// SetRevision changes it.
func (c Changes) SetRevision(k *Key, rev uint64) { k.rev = rev }

// Keep writes a key's record anew.
func (c Changes) Keep(k *Key) (err error) {
	k.rev, err = c.store.kept.Put(k.record(), k.rev)
	return err
}

// Record is the key as it is kept.
func (c Changes) Record(k *Key) ([]byte, error) { return json.Marshal(k.record()) }
