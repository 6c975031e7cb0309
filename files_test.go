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
)

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
