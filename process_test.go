package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/mock"
)

// runProcess starts cmd, a program as a process of its own, waits until it serves and kills it with
// the test. It returns the lines of its log that follow, and where they come from.
func runProcess(t *testing.T, cmd *exec.Cmd) (*node, *bufio.Scanner, io.Closer) {
	t.Helper()
	cmd.Env = append(os.Environ(), programEnv+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stderr)
	var line struct{ Msg, Listen, Admin string }
	for line.Msg != "sluice serves" {
		if !lines.Scan() {
			t.Fatal("it ended before it served")
		}
		_ = json.Unmarshal(lines.Bytes(), &line)
	}
	return &node{t: t, data: "http://" + line.Listen, admin: "http://" + line.Admin}, lines, stderr
}

// TestTheReaderOfStderrLeaves: the process goes on serving, and counts the lines that it could not
// write.
func TestTheReaderOfStderrLeaves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, settings(dir, provider(t, &mock.Provider{Chunks: 1}), "access_log: true"))
	cmd := exec.Command(os.Args[0], "-config", path)
	n, _, stderr := runProcess(t, cmd)
	stderr.Close()
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

// TestProcessOneIsNotReplaced: in a container, whose processes all end with process 1.
func TestProcessOneIsNotReplaced(t *testing.T) {
	t.Parallel()
	if replaceable(1) == nil || replaceable(2) != nil {
		t.Errorf("replaceable: %v, %v", replaceable(1), replaceable(2))
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, settings(dir, "http://127.0.0.1:1/v1", ""))
	cmd := exec.Command(os.Args[0], "-config", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	probe := exec.Command("true")
	probe.SysProcAttr = cmd.SysProcAttr
	if err := probe.Run(); errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.ENOSPC) {
		t.Skip("a namespace of processes cannot be made here: ", err)
	}
	n, log, _ := runProcess(t, cmd)
	_ = cmd.Process.Signal(syscall.SIGUSR2)
	for !strings.Contains(log.Text(), "SIGUSR2 is refused") {
		if !log.Scan() {
			t.Fatal("it ended")
		}
	}
	if !strings.Contains(log.Text(), "this is process 1") {
		t.Errorf("%s", log.Text())
	}
	if status, body := n.call("GET", n.admin+"/readyz", "", ""); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	for log.Scan() { // until it has ended
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestMockEndsWithItsTerminal: only a process that serves takes SIGHUP for something else.
func TestMockEndsWithItsTerminal(t *testing.T) {
	cmd := exec.Command(os.Args[0], "mock", "-listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), programEnv+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() }).Stop()
	lines := bufio.NewScanner(stderr)
	if !lines.Scan() || !strings.Contains(lines.Text(), "listens on 127.0.0.1:") {
		t.Fatalf("it said %q", lines.Text())
	}
	_ = cmd.Process.Signal(syscall.SIGHUP)
	_ = cmd.Wait()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() == syscall.SIGKILL {
		t.Error("SIGHUP did not end it")
	}
}
