package keys

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// ErrNotFound is the error for an id that no key has.
var ErrNotFound = errors.New("no such key")

// ErrClosed is the error for a change of a store that has given up its file.
var ErrClosed = errors.New("the key store is closed")

// lockWait is how long Open waits for another process to give up the file.
const lockWait = 3 * time.Second

var bucket = []byte("keys")

// Store keeps keys in one bbolt file and an index of them in memory. Reads go to the
// index and take no lock; a change is on disk before it takes effect.
type Store struct {
	now  func() time.Duration
	path string

	mu     sync.Mutex // one change at a time
	db     *bbolt.DB
	byHash *xsync.Map[Hash, *Key]
	byID   *xsync.Map[string, *Key]
}

// record is a key in the file.
type record struct {
	Spec
	Hash string `json:"hash"`
}

// Open opens the file, or makes it, and loads every key. now is the clock of the keys'
// windows. A file that is damaged or in use by another process is an error.
func Open(path string, now func() time.Duration) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot open key store: %w", err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := initialize(path); err != nil {
			return nil, fmt.Errorf("cannot make key store: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("cannot open key store: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("cannot open key store: %s is not a file", path)
	case info.Size() == 0:
		return nil, damaged(path, errors.New("it is empty"))
	}
	s := &Store{now: now, path: path, byHash: xsync.NewMap[Hash, *Key](), byID: xsync.NewMap[string, *Key]()}
	if err := s.open(path); err != nil {
		if s.db != nil {
			s.db.Close()
		}
		return nil, err
	}
	return s, nil
}

// initialize makes an empty store beside path and then gives it its name, so that a store
// is never half made; should another process be first, its store stays.
func initialize(path string) error {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, ".keys-*")
	if err != nil {
		return err
	}
	f.Close()
	defer os.Remove(f.Name())
	db, err := bbolt.Open(f.Name(), 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func damaged(path string, err error) error {
	return fmt.Errorf("key store %s is damaged: %w; put a backup in its place, or move it away to begin without any key", path, err)
}

func (s *Store) open(path string) (err error) {
	// The file is mapped into memory: a page that points nowhere panics, one beyond the
	// end of a cut file faults.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			s.db = nil // its locks are in an unknown state
			err = damaged(path, fmt.Errorf("reading it failed: %v", r))
		}
	}()
	s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("key store %s is in use by another process; one sluice at a time can have it", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot open key store: %w", err)
	case err != nil:
		return damaged(path, err)
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		if info, err := os.Stat(path); err != nil || info.Size() < tx.Size() {
			return errors.New("it is cut short")
		}
		var found error
		for err := range tx.Check() { // to its end: its goroutine waits to be read
			found = cmp.Or(found, err)
		}
		if found != nil {
			return found
		}
		b := tx.Bucket(bucket)
		if b == nil {
			return errors.New("it holds something else")
		}
		return b.ForEach(s.load)
	})
	if err != nil {
		return damaged(path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("cannot close key store to others: %w", err)
	}
	return nil
}

// load indexes one record of the file.
func (s *Store) load(id, value []byte) error {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return fmt.Errorf("key %q cannot be read: %w", id, err)
	}
	hash, err := hex.DecodeString(r.Hash)
	if err != nil || len(hash) != len(Hash{}) || r.ID != string(id) {
		return fmt.Errorf("key %q has no valid hash or another id", id)
	}
	if err := r.Spec.check(); err != nil {
		return fmt.Errorf("key %q: %w", id, err)
	}
	s.index(&r.Spec, Hash(hash))
	return nil
}

func (s *Store) index(spec *Spec, hash Hash) {
	k := &Key{hash: hash}
	k.set(spec, s.now())
	s.byID.Store(spec.ID, k)
	s.byHash.Store(hash, k)
}

// Close closes the file, so that another process can have it. Lookups go on working; changes are
// refused with ErrClosed.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.Close()
}

// Reopen takes the file back after Close, if nobody has changed it since.
func (s *Store) Reopen() error {
	db, err := bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: lockWait})
	if err != nil {
		return fmt.Errorf("cannot open key store again: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db = db
	return nil
}

// closed tells ErrClosed from the disk's errors.
func closed(err error) error {
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
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
func (s *Store) List(limit int, after string) (keys []*Key, more bool, err error) {
	s.mu.Lock()
	db := s.db
	s.mu.Unlock()
	err = db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		id, _ := c.Seek([]byte(after))
		if bytes.Equal(id, []byte(after)) && after != "" {
			id, _ = c.Next()
		}
		for ; id != nil; id, _ = c.Next() {
			if len(keys) == limit {
				more = true
				return nil
			}
			if k, ok := s.byID.Load(string(id)); ok {
				keys = append(keys, k)
			}
		}
		return nil
	})
	return keys, more, closed(err)
}

// Create makes a key with spec's name, expiry, models, limits and disabled, and returns
// it with its secret, which cannot be had again. The error is a *FieldError or the disk's.
func (s *Store) Create(spec Spec) (*Spec, string, error) {
	if err := spec.check(); err != nil {
		return nil, "", err
	}
	secret := newSecret()
	hash, _ := hashOf([]byte(secret))
	spec.CreatedAt = time.Now().UTC().Truncate(time.Millisecond)
	spec.ID, spec.Prefix = newID(spec.CreatedAt), secret[:shownLength]

	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.put(&spec, hash); err != nil {
		return nil, "", err
	}
	s.index(&spec, hash)
	return &spec, secret, nil
}

// Update changes the key's spec by change, which gets a copy and may refuse; its id,
// prefix and time of making stay. The error is ErrNotFound, change's, a *FieldError or
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
	if err := spec.check(); err != nil {
		return nil, err
	}
	if err := s.put(&spec, k.hash); err != nil {
		return nil, err
	}
	k.set(&spec, s.now())
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
	if err := s.put(&spec, hash); err != nil {
		return nil, "", err
	}
	s.byHash.Delete(k.hash)
	k.hash = hash
	k.spec.Store(&spec)
	s.byHash.Store(hash, k)
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
	if err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).Delete([]byte(id))
	}); err != nil {
		return fmt.Errorf("cannot delete key: %w", closed(err))
	}
	s.byHash.Delete(k.hash)
	s.byID.Delete(id)
	return nil
}

// put writes one record and waits until it is on disk.
func (s *Store) put(spec *Spec, hash Hash) error {
	value, err := json.Marshal(record{Spec: *spec, Hash: hex.EncodeToString(hash[:])})
	if err != nil {
		return fmt.Errorf("cannot write key: %w", err)
	}
	if err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).Put([]byte(spec.ID), value)
	}); err != nil {
		return fmt.Errorf("cannot write key: %w", closed(err))
	}
	return nil
}
