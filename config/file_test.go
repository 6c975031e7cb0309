package config

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestOnlyRegularFilesAreRead: whatever stands where a file should be read is refused at once, by
// name and with what it is. So it is for the configuration and for every file that it names.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("large"), strings.Repeat("#", maxFile+1))
	if err := errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("/dev/zero", at("zero")), os.Symlink(at("pipe"), at("link"))); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for name, want := range map[string]string{
		"pipe": "is a named pipe; it must be a regular file", "link": "is a named pipe; it must be a regular file",
		"zero": "is a device; it must be a regular file", "socket": "is a socket; it must be a regular file",
		".": "is a directory; it must be a regular file", "large": "is larger than 1 MiB, the most that a file may have",
		"missing": "no such file or directory",
	} {
		if _, _, err := Load(t.Context(), at(name)); err == nil || !strings.Contains(err.Error(), "cannot read config: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s as the configuration: %v", name, err)
		}
		named := strings.ReplaceAll(`
tls: {cert: "FILE", key: "FILE", client_ca: "FILE"}
admin: {token: "${file:FILE}", tls: {cert: "FILE", key: "FILE", client_ca: "FILE"}}
upstreams: {up: {base_url: "http://127.0.0.1:1/v1", api_key: "${file:FILE}", headers: {x: "${file:FILE}"}, ca: "FILE"}}
models: {m: {targets: [{upstream: up}]}}
`, "FILE", at(name))
		write(t, at("config.yaml"), named)
		_, _, err := Load(t.Context(), at("config.yaml"))
		if err == nil || strings.Count(err.Error(), want) != strings.Count(named, at(name)) {
			t.Errorf("%s as a file that is named: %v", name, err)
		}
	}
	write(t, at("full"), inFlightConfig(1)+strings.Repeat("#", maxFile-len(inFlightConfig(1))))
	if _, _, err := Load(t.Context(), at("full")); err != nil {
		t.Errorf("a file of 1 MiB: %v", err)
	}
}

// TestFilesTogetherAreBounded: one file named often, and one variable, take no more than maxPutIn.
func TestFilesTogetherAreBounded(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret"), strings.Repeat("x", maxFile))
	env := func(string) (string, bool) { return strings.Repeat("x", maxFile), true }
	for _, reference := range []string{"${file:secret}", "${LARGE}"} {
		for times, want := range map[int]bool{14: true, 17: false} {
			text := minimal + "keys: {store: \"" + strings.Repeat(reference, times) + "\"}\n"
			text = strings.Replace(text, `"${TOKEN}"`, "0123456789abcdef", 1)
			_, _, err := parse(t.Context(), filepath.Join(dir, "config.yaml"), []byte(text), env)
			if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "keys.store: ") {
				t.Errorf("%d of %s: %.300v", times, reference, err)
			} else if err != nil && !strings.Contains(err.Error(), "have more than 16 MiB together") {
				t.Errorf("%.300v", err)
			}
		}
	}
}

// TestFileSystemThatHangs: a read that does not return is abandoned in time, and costs one goroutine.
func TestFileSystemThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := make(chan struct{})
		hang := func() ([]byte, error) { <-answers; return []byte("late"), nil }
		again := func() ([]byte, error) { return []byte("content"), nil }
		ctx, cancel := context.WithTimeout(t.Context(), fileTime)
		defer cancel()
		began := time.Now()
		if _, err := readWithin(ctx, "/nfs/a", hang); err == nil || !strings.Contains(err.Error(), "/nfs/a was not read within 5s") || time.Since(began) != fileTime {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if _, err := readWithin(ctx, "/nfs/b", again); err == nil || !strings.Contains(err.Error(), "/nfs/b was not read within 5s") {
			t.Errorf("another file after the deadline: %v", err)
		}
		if _, err := readWithin(t.Context(), "/nfs/a", again); err == nil || !strings.Contains(err.Error(), "still being read") {
			t.Errorf("again: %v", err)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := readWithin(ended, "/nfs/a", again); !errors.Is(err, context.Canceled) {
			t.Errorf("once the process ends: %v", err)
		}
		close(answers)
		synctest.Wait()
		if b, err := readWithin(t.Context(), "/nfs/a", again); string(b) != "content" || err != nil {
			t.Errorf("when it answers again: %q, %v", b, err)
		}
	})
}

// TestReloadThatIsAbandoned changes nothing, not even what is said of the file.
func TestReloadThatIsAbandoned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, inFlightConfig(1))
	w := watch(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.live.Reload(ctx); !errors.Is(err, context.Canceled) || len(w.applied) > 0 || w.live.Status().Error != "" {
		t.Errorf("%v, %+v", err, w.live.Status())
	}
}

// TestWarnings: what is allowed and most likely wrong is said, at its place, at the start and on a
// reload.
func TestWarnings(t *testing.T) {
	for base, want := range map[string]string{
		"https://api.openai.com/v1":                               "",
		"https://generativelanguage.googleapis.com/v1beta/openai": "",
		"https://x.test/openai/v1/":                               "",
		"https://x.test":                                          "has no version in its path",
		"https://x.test/":                                         "has no version in its path",
		"https://x.test/vllm":                                     "has no version in its path",
		"https://x.test/v1/chat/completions":                      "ends in the path of one endpoint",
		"https://x.test/v1/messages/":                             "ends in the path of one endpoint",
	} {
		got := strings.Join(mustParse(t, strings.Replace(minimal, "http://127.0.0.1:1/v1", base, 1)).Warnings(), "\n")
		if want != "" {
			want = "config.yaml:3:18: upstreams.up.base_url: " + want
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", base, got, want)
		}
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, inFlightConfig(1))
	w := watch(t, path)
	write(t, path, strings.Replace(inFlightConfig(2), "1/v1", "1", 1))
	w.want(<-w.applied, 2)
	<-w.tried
	if !strings.Contains(w.log.String(), "config may be wrong") {
		t.Errorf("the log does not say so: %s", w.log)
	}
}

// TestRelativeStore: a relative key store is beside the configuration.
func TestRelativeStore(t *testing.T) {
	for given, want := range map[Location]Location{"data/keys.db": "/etc/sluice/data/keys.db", "/data/keys.db": "/data/keys.db", "redis://h:1/0": "redis://h:1/0"} {
		if got := given.In("/etc/sluice"); got != want {
			t.Errorf("%s is %s", given, got)
		}
	}
}
