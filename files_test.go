package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPipeForAConfiguration: a named pipe in the file's place is told, and holds no signal up.
func TestPipeForAConfiguration(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, settings(dir, "http://127.0.0.1:1/v1", ""))
	cmd, admin := process(t, path)
	n := &node{t: t, admin: admin}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGHUP)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, body := n.call("GET", admin+"/api/config", adminToken, ""); strings.Contains(body, "config.yaml is a named pipe") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the pipe is not told")
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("SIGTERM does not end it")
	}
}

// TestImportFiles: keys are imported from a file or a pipe, and from nothing else.
func TestImportFiles(t *testing.T) {
	n := begin(t, "http://127.0.0.1:1/v1", "")
	t.Setenv("SLUICE_ADMIN", n.admin)
	t.Setenv("SLUICE_ADMIN_TOKEN", adminToken)
	n.key(`{"name":"x"}`)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	exported, err := n.shell("keys", "export")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = os.WriteFile(pipe, []byte(exported), 0o600) }() // ends when the pipe is read
	if out, err := n.shell("keys", "import", pipe); err != nil || !strings.Contains(out, "0 keys were added, 1 were there") {
		t.Errorf("from a pipe: %q, %v", out, err)
	}
	for _, name := range []string{"/dev/zero", t.TempDir()} {
		if _, err := n.shell("keys", "import", name); err == nil || !strings.Contains(err.Error(), name+" must be a file or a pipe") {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"keys", "import", pipe}, io.Discard, io.Discard, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a pipe out of which nothing comes, after SIGINT: %v", err)
	}
	if err := os.WriteFile(pipe, nil, 0o600); err != nil { // lets the goroutine that waits for the pipe end
		t.Error(err)
	}
}
