package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/keys"
)

// A process that is told to (SIGUSR2) starts its program anew and hands the sockets over, unless it is
// process 1 of a container. Nothing that waits in their queues is lost, and there is no moment at which
// nobody accepts:
//
//	old                                  new
//	starts it, with LISTEN_FDS           reads the configuration
//	                                     says "loaded"
//	gives up the key store               opens the key store, accepts
//	                                     says "serving"
//	stops accepting, drains, ends
//
// If the new process ends before it serves, the old one takes the key store back and goes on.
const (
	// takeoverEnv has the number of the file descriptor on which the new process speaks.
	takeoverEnv = "SLUICE_TAKEOVER"
	saysLoaded  = "loaded"
	saysServing = "serving"
	// takeoverWait is how long the new process may take.
	takeoverWait = 30 * time.Second
)

// self is this program's file, found before anybody changes the folder or the file.
var self = func() string {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return os.Args[0]
	}
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}()

// replaceable says why the process pid cannot be replaced. The kernel kills all processes of a container
// when its process 1 ends, the one that took over among them.
func replaceable(pid int) error {
	if pid == 1 {
		return errors.New("this is process 1: the container ends with it, and so would the process that took over; " +
			"start a new container and stop this one with SIGTERM (a rolling update does)")
	}
	return nil
}

// replace starts the program anew and returns once that serves. After an error everything is as it was.
func replace(ctx context.Context, s *sockets, store *keys.Store) error {
	ctx, cancel := context.WithTimeout(ctx, takeoverWait)
	defer cancel()
	says, mouth, err := os.Pipe()
	if err != nil {
		return err
	}
	defer says.Close()
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = func() error {
		defer mouth.Close()
		for _, ln := range [...]net.Listener{s.data, s.admin} {
			f, err := duplicate(ln)
			if err != nil {
				return err
			}
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, mouth)
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LISTEN_") }),
			"LISTEN_FDS=2", "LISTEN_FDNAMES=data:admin", takeoverEnv+"="+strconv.Itoa(2+len(cmd.ExtraFiles)))
		return cmd.Start()
	}()
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", self, err)
	}
	kill := context.AfterFunc(ctx, func() {
		_ = cmd.Process.Kill()
		_ = says.SetReadDeadline(time.Now().Add(time.Second)) // a child of its own may keep the other end
	})
	lines, gaveUp := bufio.NewScanner(says), false
	for lines.Scan() {
		switch {
		case lines.Text() == saysLoaded && !gaveUp:
			gaveUp = true
			err = store.GiveUp()
		case lines.Text() == saysServing && kill():
			return cmd.Process.Release()
		}
	}
	err = errors.Join(fmt.Errorf("the new process ended before it served (%w); its log says why", cmp.Or(cmd.Wait(), errEnded)), context.Cause(ctx), err)
	kill()
	if gaveUp {
		err = errors.Join(err, store.TakeBack())
	}
	return err
}

var errEnded = errors.New("exit status 0")

// duplicate is another descriptor for ln's socket. Not its File: that would let the socket block,
// for this process too.
func duplicate(ln net.Listener) (f *os.File, err error) {
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		var n int
		if n, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			f = os.NewFile(uintptr(n), ln.Addr().String())
		}
	})
	return f, errors.Join(cerr, err)
}

// predecessor is the process that this one replaces; nil for none.
type predecessor struct{ ear *os.File }

func findPredecessor() (*predecessor, error) {
	text, there := os.LookupEnv(takeoverEnv)
	if !there {
		return nil, nil
	}
	os.Unsetenv(takeoverEnv)
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // who started this process could not know it
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s is set by a sluice that starts another, not by hand", takeoverEnv)
	}
	unix.CloseOnExec(fd)
	return &predecessor{os.NewFile(uintptr(fd), takeoverEnv)}, nil
}

// tell says how far this process is.
func (p *predecessor) tell(what string) error {
	if p == nil {
		return nil
	}
	if _, err := fmt.Fprintln(p.ear, what); err != nil {
		return fmt.Errorf("the process before this one has ended: %w", err)
	}
	return nil
}

func (p *predecessor) close() {
	if p != nil {
		p.ear.Close()
	}
}
