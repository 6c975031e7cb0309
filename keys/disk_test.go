package keys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// TestDiskErrors: what the operating system refuses is called what it is, and not damage.
func TestDiskErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s, err := Open(path, still)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	for errno, want := range map[syscall.Errno]string{
		syscall.EROFS:  "is on a read-only file system; mount its folder writable",
		syscall.EACCES: "give that user read and write access",
		syscall.EPERM:  "give that user read and write access",
		syscall.ENOSPC: "no space left",
		syscall.EDQUOT: "no space left",
		syscall.EMFILE: "too many open files",
		syscall.EIO:    "input/output error",
	} {
		refuse := func(name string, _ int, _ os.FileMode) (*os.File, error) {
			return nil, &fs.PathError{Op: "open", Path: name, Err: errno}
		}
		b := &boltFile{path: path, openFile: refuse}
		err := b.open(func(string, []byte) error { return nil })
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "damaged") {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

// TestDiskThatFills: a change that finds no space is refused as one that can be tried again.
func TestDiskThatFills(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	b, err := openBolt(path, func(string, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EROFS} {
		err := b.update(func(*bbolt.Tx) error { return &fs.PathError{Op: "write", Path: path, Err: errno} })
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

// TestUnfinishedStoresAreRemoved, and nothing else is.
func TestUnfinishedStoresAreRemoved(t *testing.T) {
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	for _, name := range []string{".keys-123", ".keys-4567", ".keys-backup", ".keys-", "keys-123", ".keys-99"} {
		if err := os.WriteFile(at(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-2 * unfinishedAge)
		if err := os.Chtimes(at(name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(at(".keys-99"), time.Now(), time.Now()); err != nil { // somebody makes it just now
		t.Fatal(err)
	}
	if err := os.Mkdir(at(".keys-5"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(at("keys.db"), still)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	left, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range left {
		names = append(names, entry.Name())
	}
	if got := strings.Join(names, " "); got != ".keys- .keys-5 .keys-99 .keys-backup keys-123 keys.db" {
		t.Errorf("what is left: %s", got)
	}
}
