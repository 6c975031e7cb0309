package keys

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
)

// ErrNotFound is the error for an id that no key has.
var ErrNotFound = errors.New("no such key")

// Store has the keys: in an index in memory, which reads go to without a lock, and where they are
// kept. A change is kept before it takes effect.
type Store struct {
	now    func() time.Duration
	kept   Keeper
	shared SharedKeeper // nil for the embedded store

	mu     sync.Mutex // one change at a time
	byHash *xsync.Map[Hash, *Key]
	byID   *xsync.Map[string, *Key]
}

// Open opens the store at path, a file, or makes it, and loads every key. now is the clock of the
// keys' windows.
func Open(path string, now func() time.Duration) (*Store, error) {
	s := newStore(now)
	b, err := openBolt(path, func(id string, value []byte) error { return s.load(id, value, 0) })
	if err != nil {
		return nil, err
	}
	s.kept = b
	return s, nil
}

// OpenShared makes a store without any key, of which k has the records; k loads them.
func OpenShared(k SharedKeeper, now func() time.Duration) *Store {
	s := newStore(now)
	s.kept, s.shared = k, k
	return s
}

func newStore(now func() time.Duration) *Store {
	return &Store{now: now, byHash: xsync.NewMap[Hash, *Key](), byID: xsync.NewMap[string, *Key]()}
}

// load indexes a record.
func (s *Store) load(id string, value []byte, rev uint64) error {
	spec, hash, err := read(value)
	if err == nil && spec.ID != id {
		err = errors.New("it has another id")
	}
	if err != nil {
		return fmt.Errorf("key %q: %w", id, err)
	}
	s.index(spec, hash, rev)
	return nil
}

// read reads a record.
func read(value []byte) (*Spec, Hash, error) {
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, Hash{}, fmt.Errorf("it cannot be read: %w", err)
	}
	hash, err := hex.DecodeString(r.Hash)
	switch {
	case err != nil, len(hash) != len(Hash{}):
		return nil, Hash{}, errors.New("it has no valid hash")
	case !strings.HasPrefix(r.ID, idPrefix):
		return nil, Hash{}, errors.New("it has no id")
	}
	return &r.Spec, Hash(hash), r.Spec.check()
}

// index makes a record take effect, for a key that is known or one that is not.
func (s *Store) index(spec *Spec, hash Hash, rev uint64) {
	k, known := s.byID.Load(spec.ID)
	if !known {
		k = &Key{meters: newMeters(s.shares(spec.ID))}
	}
	k.rev = rev
	if known && k.hash != hash {
		s.byHash.Delete(k.hash)
	}
	k.hash = hash
	k.set(spec, s.now())
	s.byID.Store(spec.ID, k)
	s.byHash.Store(hash, k)
}

// shares makes the shares of a key's limits; nil for the embedded store.
func (s *Store) shares(id string) func(limit string) Share {
	if s.shared == nil {
		return nil
	}
	return func(limit string) Share { return s.shared.Share(limit, id) }
}

// Sharing reports how the shared store is doing; false for the embedded one.
func (s *Store) Sharing() (Sharing, bool) {
	if s.shared == nil {
		return Sharing{}, false
	}
	return s.shared.Sharing(), true
}

// HoldStrictly is SharedKeeper's. The embedded store has no use for it.
func (s *Store) HoldStrictly(strict bool) {
	if s.shared != nil {
		s.shared.HoldStrictly(strict)
	}
}

// Close ends the store. Lookups go on working; changes are refused with ErrUnavailable.
func (s *Store) Close() error { return s.kept.Close() }

// GiveUp lets another process on this machine have the store, if only one can. Lookups go on working;
// changes are refused with ErrUnavailable.
func (s *Store) GiveUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.GiveUp()
}

// TakeBack takes it back after GiveUp.
func (s *Store) TakeBack() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.TakeBack()
}

// Create makes a key with spec's name, expiry, models, limits and disabled, and returns
// it with its secret, which cannot be had again. The error is a *FieldError, ErrUnavailable or the disk's.
func (s *Store) Create(spec Spec) (*Spec, string, error) {
	if err := errors.Join(spec.check(), spec.checkText(nil)); err != nil {
		return nil, "", err
	}
	secret := newSecret()
	hash, _ := hashOf([]byte(secret))
	spec.CreatedAt = time.Now().UTC().Truncate(time.Millisecond)
	spec.ID, spec.Prefix = newID(spec.CreatedAt), secret[:shownLength]

	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.put(&spec, hash, 0); err != nil {
		return nil, "", err
	}
	return &spec, secret, nil
}

// Update changes the key's spec by change, which gets a copy and may refuse; its id,
// prefix and time of making stay. The error is ErrNotFound, change's, a *FieldError, ErrUnavailable or
// the disk's; after an error nothing has changed.
func (s *Store) Update(id string, change func(*Spec) error) (*Spec, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.Get(id)
	if err != nil {
		return nil, err
	}
	old := k.Spec()
	spec := old.clone()
	if err := change(&spec); err != nil {
		return nil, err
	}
	spec.ID, spec.Prefix, spec.CreatedAt = old.ID, old.Prefix, old.CreatedAt
	if err := errors.Join(spec.check(), spec.checkText(old)); err != nil {
		return nil, err
	}
	if err := s.put(&spec, k.hash, k.rev); err != nil {
		return nil, err
	}
	return &spec, nil
}

// Rotate gives the key a new secret; the old one stops at once.
func (s *Store) Rotate(id string) (*Spec, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.Get(id)
	if err != nil {
		return nil, "", err
	}
	secret := newSecret()
	hash, _ := hashOf([]byte(secret))
	spec := k.Spec().clone()
	spec.Prefix = secret[:shownLength]
	if err := s.put(&spec, hash, k.rev); err != nil {
		return nil, "", err
	}
	return &spec, secret, nil
}

// Delete revokes the key.
func (s *Store) Delete(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.Get(id)
	if err != nil {
		return err
	}
	if err := s.kept.Remove(id, k.rev); err != nil {
		return fmt.Errorf("cannot delete key: %w", err)
	}
	s.forget(k)
	return nil
}

func (s *Store) forget(k *Key) {
	s.byHash.Delete(k.hash)
	s.byID.Delete(k.Spec().ID)
}

// put keeps a record, and then has it take effect.
func (s *Store) put(spec *Spec, hash Hash, rev uint64) error {
	rev, err := s.kept.Put(&Record{Spec: *spec, Hash: hex.EncodeToString(hash[:])}, rev)
	if err != nil {
		return fmt.Errorf("cannot write key: %w", err)
	}
	s.index(spec, hash, rev)
	return nil
}
