package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// TestTheReaderOfStderrLeaves: the process goes on serving, and counts the lines that it could not
// write.
func TestTheReaderOfStderrLeaves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, settings(dir, provider(t, &upstreamtest.Provider{Chunks: 1}), "access_log: true"))
	cmd := exec.Command(os.Args[0], "-config", path)
	cmd.Env = append(os.Environ(), programEnv+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var line struct{ Msg, Listen, Admin string }
	for lines := bufio.NewScanner(stderr); line.Msg != "sluice serves"; {
		if !lines.Scan() {
			t.Fatal("it ended before it served")
		}
		_ = json.Unmarshal(lines.Bytes(), &line)
	}
	stderr.Close()

	n := &node{t: t, data: "http://" + line.Listen, admin: "http://" + line.Admin}
	secret := n.key(`{"name":"x"}`)
	for range 3 {
		if status, body := n.call("POST", n.data+"/v1/chat/completions", secret, `{"model":"demo"}`); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGHUP) // it logs the reload
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, metrics := n.call("GET", n.admin+"/metrics", adminToken, "")
		if strings.Contains(metrics, "\nsluice_access_log_dropped_total 3\n") && !strings.Contains(metrics, "\nsluice_log_dropped_total 0\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("lines that were not written are not counted:\n%s", strings.Join(series(metrics, `(?m)^(sluice_\w*log_dropped_total .*)$`), "\n"))
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
