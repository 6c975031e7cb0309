package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/upstreamtest"
)

// demo is demo.sh, as "make run" starts it, in a folder of its own and on ports of its own.
type demo struct {
	t                 *testing.T
	dir               string
	data, admin, mock string // addresses
	cmd               *exec.Cmd
	out               upstreamtest.Buffer
	ended             chan struct{} // closed when the shell has ended
}

func newDemo(t *testing.T) *demo {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	d := &demo{t: t, dir: t.TempDir(), data: freePort(t), admin: freePort(t), mock: freePort(t), ended: make(chan struct{})}
	ports := map[string]string{}
	for port, address := range map[string]string{"8080": d.data, "9090": d.admin, "8081": d.mock} {
		_, ports[port], _ = net.SplitHostPort(address)
	}
	for _, name := range []string{"config.yaml", "demo.sh"} {
		write(t, filepath.Join(d.dir, name), regexp.MustCompile(`\b(8080|9090|8081)\b`).
			ReplaceAllStringFunc(read(t, name), func(p string) string { return ports[p] }))
	}
	program := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", programEnv, os.Args[0])
	if err := os.WriteFile(filepath.Join(d.dir, "sluice"), []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	d.cmd = exec.Command("sh", "demo.sh")
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = d.dir, &d.out, &d.out
	d.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SLUICE_") })
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return d
}

// start starts it, until the end of the test.
func (d *demo) start() {
	d.t.Helper()
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		defer close(d.ended)
		_ = d.cmd.Wait()
	}()
	d.t.Cleanup(func() {
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-d.ended
	})
}

// within waits until something is so.
func (d *demo) within(what string, is func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("not in time: %s\n%s", what, &d.out)
		}
	}
}

func (d *demo) hasEnded() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

// serves waits until it has printed its request.
func (d *demo) serves() {
	d.t.Helper()
	d.within("it prints a request", func() bool {
		if d.hasEnded() {
			d.t.Fatalf("it ended\n%s", &d.out)
		}
		return strings.Contains(d.out.String(), "\ncurl -sN ")
	})
}

// TestDemoEnds: whatever ends make run, its terminal for instance, ends both programs.
func TestDemoEnds(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			d := newDemo(t)
			d.start()
			d.serves()
			_ = d.cmd.Process.Signal(s) // to the shell alone
			d.within("it ends", d.hasEnded)
			if err := syscall.Kill(-d.cmd.Process.Pid, 0); err != syscall.ESRCH {
				t.Errorf("it has left a process behind: %v", err)
			}
		})
	}
	t.Run("a process that took over", func(t *testing.T) {
		t.Parallel()
		// It becomes this process's child, so that its end can be awaited.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		d := newDemo(t)
		d.start()
		d.serves()
		pids := func() []string { return series(d.out.String(), `"msg":"sluice serves".*"pid":(\d+)`) }
		first, _ := strconv.Atoi(pids()[0])
		_ = syscall.Kill(first, syscall.SIGUSR2)
		d.within("another takes over", func() bool { return len(pids()) == 2 })
		second, _ := strconv.Atoi(pids()[1])
		d.within("the first drains", func() bool { return strings.Contains(d.out.String(), "sluice has ended") })
		if d.hasEnded() {
			t.Error("make run has ended with the first process")
		}
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		d.within("it ends", d.hasEnded)
		d.within("the second ends with it", func() bool {
			pid, err := unix.Wait4(second, nil, unix.WNOHANG, nil)
			return pid == second || err == unix.ECHILD
		})
	})
}

// TestDemoBesideAnother: a port that another process has is named. That process gets no secret, and
// no file changes.
func TestDemoBesideAnother(t *testing.T) {
	for name, of := range map[string]func(*demo) string{
		"data":     func(d *demo) string { return d.data },
		"admin":    func(d *demo) string { return d.admin },
		"provider": func(d *demo) string { return d.mock },
	} {
		for _, files := range []map[string]string{nil, {"admin.token": adminToken, "dev.key": "sk-sluice-old"}} {
			t.Run(fmt.Sprint(name, ", ", len(files), " files"), func(t *testing.T) {
				t.Parallel()
				d := newDemo(t)
				address := of(d)
				ln, err := net.Listen("tcp", address)
				if err != nil {
					t.Skip(err)
				}
				var asked atomic.Int64
				other := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					asked.Add(1)
				})}}
				other.Start()
				defer other.Close()
				folder := filepath.Join(d.dir, "data")
				if files != nil {
					if err := os.Mkdir(folder, 0o700); err != nil {
						t.Fatal(err)
					}
				}
				for name, text := range files {
					write(t, filepath.Join(folder, name), text)
				}

				d.start()
				d.within("it ends", d.hasEnded)
				_, port, _ := net.SplitHostPort(address)
				if out := d.out.String(); d.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, ":"+port+": bind: address already in use") ||
					!strings.Contains(out, "did not start") || strings.Contains(out, "curl -sN") {
					t.Errorf("exit code %d\n%s", d.cmd.ProcessState.ExitCode(), out)
				}
				if asked.Load() != 0 {
					t.Errorf("the other process was asked %d times", asked.Load())
				}
				left, _ := os.ReadDir(folder)
				if len(left) != len(files) {
					t.Errorf("in data: %v", left)
				}
				for name, text := range files {
					if got := read(t, filepath.Join(folder, name)); got != text {
						t.Errorf("%s is now %q", name, got)
					}
				}
			})
		}
	}
}
