package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// demoProcess is "sluice demo", in a folder of its own and on ports of its own.
type demoProcess struct {
	t           *testing.T
	dir         string // that it runs in; data is under it
	data, admin string // addresses
	cmd         *exec.Cmd
	out         upstreamtest.Buffer
	ended       chan struct{} // closed when it has ended
}

func newDemo(t *testing.T) *demoProcess {
	t.Helper()
	return demoIn(t, t.TempDir())
}

func demoIn(t *testing.T, dir string) *demoProcess {
	d := &demoProcess{t: t, dir: dir, data: freePort(t), admin: freePort(t), ended: make(chan struct{})}
	_, port, _ := net.SplitHostPort(d.data)
	_, adminPort, _ := net.SplitHostPort(d.admin)
	d.cmd = sluice(t, "demo", "-port", port, "-admin-port", adminPort)
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = dir, &d.out, &d.out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return d
}

// start starts it, until the end of the test.
func (d *demoProcess) start() {
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
func (d *demoProcess) within(what string, is func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("not in time: %s\n%s", what, &d.out)
		}
	}
}

func (d *demoProcess) hasEnded() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

// serves waits until it has printed everything, and returns the request and the link.
func (d *demoProcess) serves() (request, link string) {
	d.t.Helper()
	all := regexp.MustCompile(`(?s)\n(curl -sN [^\n]+)\n.*\n(http://[^\n]+/#sign-in=\w+)\n`)
	d.within("it prints a request", func() bool {
		if d.hasEnded() {
			d.t.Fatalf("it ended\n%s", &d.out)
		}
		return all.MatchString(d.out.String())
	})
	found := all.FindStringSubmatch(d.out.String())
	return found[1], found[2]
}

// TestDemo: from nothing to an answer. What it has made serves the next time too.
func TestDemo(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	d := newDemo(t)
	d.start()
	request, link := d.serves()
	answer := func(line string) string {
		t.Helper()
		out, err := exec.Command("sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v %s", line, err, out)
		}
		return string(out)
	}
	if got := answer(request); !strings.Contains(got, `"gateway":{"model":"demo","upstream":"demo","attempts":1}`) || !strings.Contains(got, "data: [DONE]") {
		t.Errorf("streamed: %s", got)
	}
	if got := answer(strings.Replace(request, `"stream":true,`, "", 1)); !strings.HasPrefix(got, `{"gateway":{"model":"demo","upstream":"demo","attempts":1},`) {
		t.Errorf("plain: %s", got)
	}
	if !strings.HasPrefix(link, "http://"+d.admin+"/#sign-in=") {
		t.Errorf("the link is %s", link)
	}
	secrets := func() (all string) {
		for _, name := range []string{"admin.token", "dev.key"} {
			path := filepath.Join(d.dir, "data", name)
			all += read(t, path)
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v %v", name, info, err)
			}
		}
		return all
	}
	first := secrets()
	if log := regexp.MustCompile(`(?m)^\{.*$`).FindAllString(d.out.String(), -1); len(log) == 0 || strings.Contains(strings.Join(log, "\n"), strings.Fields(first)[0]) {
		t.Errorf("a log with secrets, or none: %s", log)
	}

	// Another one in the same folder is refused, and takes nothing away.
	other := demoIn(t, d.dir)
	other.start()
	other.within("it ends", other.hasEnded)
	if out := other.out.String(); other.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, "in use by another process") {
		t.Errorf("two demos in a folder: %s", out)
	}
	answer(request)

	// Its configuration is followed.
	config := filepath.Join(d.dir, "data", "config.yaml")
	write(t, config, read(t, config)+"  second: {targets: [{upstream: demo}]}\n")
	d.within("the file is followed", func() bool { return strings.Contains(d.out.String(), "config reloaded") })

	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	d.within("it ends", d.hasEnded)
	again := demoIn(t, d.dir)
	again.start()
	request, _ = again.serves()
	if got := answer(strings.Replace(request, `"model":"demo"`, `"model":"second"`, 1)); !strings.Contains(got, "data: [DONE]") || secrets() != first {
		t.Errorf("the second time: %s", got)
	}
}

// TestDemoEnds: whatever ends it, its terminal for instance, leaves no process.
func TestDemoEnds(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			d := newDemo(t)
			d.start()
			d.serves()
			// What another process of the program would take over for ends nothing here.
			_ = d.cmd.Process.Signal(syscall.SIGUSR2)
			d.within("it is not replaced", func() bool { return strings.Contains(d.out.String(), "a demo is not replaced") })
			_ = d.cmd.Process.Signal(s)
			d.within("it ends", d.hasEnded)
			if err := syscall.Kill(-d.cmd.Process.Pid, 0); err != syscall.ESRCH || d.cmd.ProcessState.ExitCode() != 0 {
				t.Errorf("it has left a process behind: %v; exit code %d", err, d.cmd.ProcessState.ExitCode())
			}
		})
	}
}

// TestDemoBesideAnother: a port that another process has is named, and one that is free. That process
// gets no secret, and no file changes.
func TestDemoBesideAnother(t *testing.T) {
	for name, of := range map[string]func(*demoProcess) (address, flag string){
		"data":  func(d *demoProcess) (string, string) { return d.data, "--port" },
		"admin": func(d *demoProcess) (string, string) { return d.admin, "--admin-port" },
	} {
		for _, files := range []map[string]string{nil, {"admin.token": adminToken, "dev.key": "sk-sluice-old", "config.yaml": "listen: x"}} {
			t.Run(fmt.Sprint(name, ", ", len(files), " files"), func(t *testing.T) {
				t.Parallel()
				d := newDemo(t)
				address, flag := of(d)
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
				d.refused(files, func(out string) bool {
					_, port, _ := net.SplitHostPort(address)
					offered := series(out, `: `+flag+` (\d+)\n`)
					if len(offered) != 1 || !strings.Contains(out, ":"+port+": bind: address already in use; port "+offered[0]+" is free") {
						return false
					}
					n, _ := strconv.Atoi(offered[0])
					return n > 0 && offered[0] != port
				})
				if asked.Load() != 0 {
					t.Errorf("the other process was asked %d times", asked.Load())
				}
			})
		}
	}
}

// TestDemoOnABadConfiguration: what is in the folder stays as it is.
func TestDemoOnABadConfiguration(t *testing.T) {
	t.Parallel()
	d := newDemo(t)
	d.refused(map[string]string{"config.yaml": "lissten: x"}, func(out string) bool {
		return strings.Contains(out, "data/config.yaml:1:1: lissten: unknown field")
	})
}

// refused starts a demo whose start fails with what is meant, and leaves the files as they were.
func (d *demoProcess) refused(files map[string]string, meant func(out string) bool) {
	t := d.t
	t.Helper()
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
	if out := d.out.String(); d.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, "did not start, and changed nothing: ") ||
		strings.Contains(out, "curl -sN") || !meant(out) {
		t.Errorf("exit code %d\n%s", d.cmd.ProcessState.ExitCode(), out)
	}
	left, err := os.ReadDir(folder)
	if len(left) != len(files) || files == nil && !os.IsNotExist(err) {
		t.Errorf("in data: %v, %v", left, err)
	}
	for name, text := range files {
		if got := read(t, filepath.Join(folder, name)); got != text {
			t.Errorf("%s is now %q", name, got)
		}
	}
}
