package keys

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
)

// ErrNotFound is the error for an id that no key has.
var ErrNotFound = errors.New("no such key")

// ErrUnavailable is the error for a change that could not be written: the store's file is another process's
// now, its disk is full or read-only, or the shared store does not answer.
var ErrUnavailable = errors.New("the key store cannot be written to now")

// ErrConflict is the error for a change of a key that another node has changed at the same moment.
var ErrConflict = errors.New("another node has changed this key at the same moment")

// Store has the keys: in an index in memory, which reads go to without a lock, and where they are
// kept. A change is kept before it takes effect.
type Store struct {
	now    func() time.Duration
	kept   keeper
	shared *shared // nil for the embedded store

	mu     sync.Mutex // one change at a time
	byHash *xsync.Map[Hash, *Key]
	byID   *xsync.Map[string, *Key]
}

// keeper is where records are kept. What it has written when it returns survives the process.
type keeper interface {
	// put writes a record over the one of revision rev, 0 for none, and returns its own revision.
	put(r *record, rev uint64) (uint64, error)
	remove(id string, rev uint64) error
	// giveUp lets another process have it, and takeBack has it again if that has not come to be.
	giveUp() error
	takeBack() error
	close() error
}

// record is a key as it is kept.
type record struct {
	Spec
	Hash string `json:"hash"`
}

// Open opens the store at path, a file, or makes it, and loads every key. now is the clock of the
// keys' windows.
func Open(path string, now func() time.Duration) (*Store, error) {
	s := &Store{now: now, byHash: xsync.NewMap[Hash, *Key](), byID: xsync.NewMap[string, *Key]()}
	b, err := openBolt(path, func(id string, value []byte) error { return s.load(id, value, 0) })
	if err != nil {
		return nil, err
	}
	s.kept = b
	return s, nil
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
	var r record
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
		k = new(Key)
		if s.shared != nil {
			k.lend(&s.shared.leases, spec.ID)
		}
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

// Close ends the store. Lookups go on working; changes are refused with ErrUnavailable.
func (s *Store) Close() error { return s.kept.close() }

// GiveUp lets another process on this machine have the store, if only one can. Lookups go on working;
// changes are refused with ErrUnavailable.
func (s *Store) GiveUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.giveUp()
}

// TakeBack takes it back after GiveUp.
func (s *Store) TakeBack() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.takeBack()
}

// Sharing is how a store that several nodes use is doing.
type Sharing struct {
	Answers bool          // or does not
	Silent  time.Duration // since it last did
	Nodes   int64         // this one among them, when it last did
	Strict  bool          // which rule holds while it does not, see HoldStrictly
}

// Sharing reports how the shared store is doing; false for the embedded one.
func (s *Store) Sharing() (Sharing, bool) {
	r := s.shared
	if r == nil {
		return Sharing{}, false
	}
	return Sharing{!r.away.Load(), s.now() - time.Duration(r.lastHeard.Load()), r.nodes.Load(), r.strict.Load()}, true
}

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
	if err := s.kept.remove(id, k.rev); err != nil {
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
	rev, err := s.kept.put(&record{Spec: *spec, Hash: hex.EncodeToString(hash[:])}, rev)
	if err != nil {
		return fmt.Errorf("cannot write key: %w", err)
	}
	s.index(spec, hash, rev)
	return nil
}
