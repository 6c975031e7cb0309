package keys

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// lockWait is how long opening waits for another process to give up the file.
const lockWait = 3 * time.Second

var bucket = []byte("keys")

// boltFile is the embedded store: one bbolt file, one process's at a time.
type boltFile struct {
	path     string
	db       *bbolt.DB
	openFile func(name string, flag int, mode os.FileMode) (*os.File, error) // a test's; nil is os.OpenFile
}

// openBolt opens the file, or makes it, and calls load for each record. A file that is damaged or in use by another process is
// an error.
func openBolt(path string, load func(id string, value []byte) error) (*boltFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, cannotOpen(path, err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := initialize(path); err != nil {
			return nil, cannotOpen(path, err)
		}
	case err != nil:
		return nil, cannotOpen(path, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("cannot open key store: %s is not a file", path)
	case info.Size() == 0:
		return nil, damaged(path, errors.New("it is empty"))
	}
	b := &boltFile{path: path}
	if err := b.open(load); err != nil {
		if b.db != nil {
			b.db.Close()
		}
		return nil, err
	}
	_ = removeUnfinished(filepath.Dir(path), time.Now()) // they are in nobody's way; next time, then
	return b, nil
}

func cannotOpen(path string, err error) error {
	return cmp.Or(diskError(path, err), fmt.Errorf("cannot open key store %s: %w", path, err))
}

// initialize makes an empty store beside path and then gives it its name, so that a store
// is never half made; should another process be first, its store stays.
func initialize(path string) error {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, unfinishedStore+"*")
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

func (b *boltFile) open(load func(id string, value []byte) error) (err error) {
	// The file is mapped into memory: a page that points nowhere panics, one beyond the
	// end of a cut file faults.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			b.db = nil // its locks are in an unknown state
			err = damaged(b.path, fmt.Errorf("reading it failed: %v", r))
		}
	}()
	b.db, err = bbolt.Open(b.path, 0o600, &bbolt.Options{Timeout: lockWait, OpenFile: b.openFile})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("key store %s is in use by another process; one sluice at a time can have it", b.path)
	case err != nil:
		return cmp.Or(diskError(b.path, err), damaged(b.path, err))
	}
	err = b.db.View(func(tx *bbolt.Tx) error {
		if info, err := os.Stat(b.path); err != nil || info.Size() < tx.Size() {
			return errors.New("it is cut short")
		}
		var found error
		for err := range tx.Check() { // to its end: its goroutine waits to be read
			found = cmp.Or(found, err)
		}
		if found != nil {
			return found
		}
		records := tx.Bucket(bucket)
		if records == nil {
			return errors.New("it holds something else")
		}
		return records.ForEach(func(id, value []byte) error { return load(string(id), value) })
	})
	if err != nil {
		return damaged(b.path, err)
	}
	if err := os.Chmod(b.path, 0o600); err != nil {
		return fmt.Errorf("cannot close key store to other users: %w", err)
	}
	return nil
}

// Put writes a record and waits until it is on disk. There is nobody else who could have changed it.
func (b *boltFile) Put(r *Record, _ uint64) (uint64, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	return 0, b.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put([]byte(r.ID), value) })
}

func (b *boltFile) Remove(id string, _ uint64) error {
	return b.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Delete([]byte(id)) })
}

func (b *boltFile) update(f func(tx *bbolt.Tx) error) error {
	err := b.db.Update(f)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("%w: another process takes it over", ErrUnavailable)
	}
	if unwritable(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, diskError(b.path, err))
	}
	return err
}

func (b *boltFile) Close() error { return b.db.Close() }

func (b *boltFile) GiveUp() error { return b.db.Close() }

func (b *boltFile) TakeBack() error {
	db, err := bbolt.Open(b.path, 0o600, &bbolt.Options{Timeout: lockWait})
	if err != nil {
		return fmt.Errorf("cannot open key store again: %w", err)
	}
	b.db = db
	return nil
}
