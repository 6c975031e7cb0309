package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// maxFile bounds each file that is read: the configuration, and every file that it names.
	maxFile = 1 << 20
	// maxPutIn bounds all that one configuration puts in from files and from the environment.
	maxPutIn = 16 << 20
	// fileTime is how long the files of one configuration may take together.
	fileTime = 5 * time.Second
)

// filesInUse has the names of the files that are being read. A read that never returns stays here,
// and its goroutine with it, so that a file on a dead file system costs one goroutine and no more.
var filesInUse sync.Map

// readFile returns the content of a regular file of at most maxFile bytes, or an error once ctx
// ends. The goroutine of an abandoned read ends when the file system answers; until then every
// further read of the same name fails at once.
func readFile(ctx context.Context, name string) ([]byte, error) {
	return readWithin(ctx, name, func() ([]byte, error) { return readRegular(name) })
}

func readWithin(ctx context.Context, name string, read func() ([]byte, error)) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, abandoned(ctx, name)
	}
	if _, busy := filesInUse.LoadOrStore(name, nil); busy {
		return nil, fmt.Errorf("%s is still being read by an earlier load; does its file system answer?", name)
	}
	type result struct {
		content []byte
		err     error
	}
	done := make(chan result, 1)
	go func() {
		content, err := read()
		filesInUse.Delete(name)
		done <- result{content, err}
	}()
	select {
	case got := <-done:
		return got.content, got.err
	case <-ctx.Done():
		return nil, abandoned(ctx, name)
	}
}

func abandoned(ctx context.Context, name string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s was not read within %s; does its file system answer?", name, fileTime)
	}
	return fmt.Errorf("%s was not read: %w", name, ctx.Err())
}

// readRegular opens nothing but a regular file: a pipe might never begin, a device never end.
func readRegular(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if err := regular(name, info); err != nil {
		return nil, err
	}
	// A pipe may have taken the file's place since. O_NONBLOCK has its open return.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := regular(name, info); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("%s is larger than 1 MiB, the most that a file may have", name)
	}
	return content, nil
}

func regular(name string, info fs.FileInfo) error {
	kind := "a device"
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	}
	return fmt.Errorf("%s is %s; it must be a regular file", name, kind)
}
