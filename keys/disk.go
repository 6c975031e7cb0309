package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// diskError says what the operating system's refusal means for the store at path, and what to do;
// nil if err is no such refusal, but the content's fault.
func diskError(path string, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("key store %s is on a read-only file system; mount its folder writable, or name another place in keys.store: %w", path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("key store %s cannot be opened or made by user %d; give that user read and write access to the file and its folder: %w", path, os.Getuid(), err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("there is no space left for key store %s; make room on its file system: %w", path, err)
	case errors.As(err, &errno):
		return fmt.Errorf("cannot open key store %s: %w", path, err)
	}
	return nil
}

// unwritable reports whether a change has failed for a reason that an operator can mend.
func unwritable(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// unfinishedStore is the name that initialize gives a store until it is whole.
const unfinishedStore = ".keys-"

var unfinishedName = regexp.MustCompile(`^\` + unfinishedStore + `[0-9]+$`)

// unfinishedAge is how old such a file must be to be nobody's work under way.
const unfinishedAge = time.Minute

// removeUnfinished removes what a process has left in the folder that ended while it made a store.
func removeUnfinished(folder string, now time.Time) error {
	found, err := filepath.Glob(filepath.Join(folder, unfinishedStore+"*"))
	if err != nil {
		return err
	}
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || !unfinishedName.MatchString(info.Name()) || now.Sub(info.ModTime()) < unfinishedAge {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
