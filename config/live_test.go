package config

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"sluice/internal/upstreamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func inFlightConfig(n int) string {
	return fmt.Sprintf("limits: {in_flight: %d}\nadmin: {token: 0123456789abcdef}\n"+
		"upstreams: {up: {base_url: \"http://127.0.0.1:1/v1\"}}\nmodels: {m: {targets: [{upstream: up}]}}\n", n)
}

// watched is a Live being watched, and what it told.
type watched struct {
	t       *testing.T
	live    *Live
	applied chan int
	tried   chan Status
	log     *upstreamtest.Buffer
}

func watch(t *testing.T, path string) *watched {
	t.Helper()
	w := &watched{t: t, applied: make(chan int, 100), tried: make(chan Status, 100), log: &upstreamtest.Buffer{}}
	cfg, digest, err := Load(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	live, err := NewLive(path, cfg, digest, slog.New(slog.NewTextHandler(w.log, nil)),
		func(c *Config) error { w.applied <- c.Limits.InFlight; return nil },
		func(s Status) { w.tried <- s })
	if err != nil {
		t.Fatal(err)
	}
	w.live = live
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- live.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.want(<-w.applied, 1)
	return w
}

func (w *watched) want(got, want int) {
	w.t.Helper()
	if got != want {
		w.t.Fatalf("in effect is %d, want %d", got, want)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestWatchRenameOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, inFlightConfig(1))
	w := watch(t, path)
	for n := 2; n < 5; n++ { // the watch outlives the first replacement
		write(t, path+".tmp", inFlightConfig(n))
		rename(t, path+".tmp", path)
		w.want(<-w.applied, n)
	}
}

func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	generation := func(n int) {
		t.Helper()
		data := fmt.Sprintf("..gen%d", n)
		if err := os.Mkdir(filepath.Join(dir, data), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, data, "config.yaml"), inFlightConfig(n))
		if err := os.Symlink(data, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
		if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..gen%d", n-1))); err != nil {
			t.Fatal(err)
		}
	}
	generation(1)
	path := filepath.Join(dir, "config.yaml")
	if err := os.Symlink("..data/config.yaml", path); err != nil {
		t.Fatal(err)
	}
	w := watch(t, path)
	for n := 2; n < 5; n++ {
		generation(n)
		w.want(<-w.applied, n)
	}
}

func TestWatchLinkedFile(t *testing.T) {
	real := filepath.Join(t.TempDir(), "real.yaml")
	write(t, real, inFlightConfig(1))
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.Symlink(real, path); err != nil {
		t.Fatal(err)
	}
	w := watch(t, path)
	write(t, real, inFlightConfig(2))
	w.want(<-w.applied, 2)
}

func TestWatchWriteInTwoSteps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, inFlightConfig(1))
	w := watch(t, path)
	text := inFlightConfig(2)
	write(t, path, "")
	write(t, path, text[:len(text)/2])
	write(t, path, text)
	w.want(<-w.applied, 2)
}

func TestBadFileChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, inFlightConfig(1))
	w := watch(t, path)
	write(t, path, strings.Replace(inFlightConfig(2), "in_flight", "in_fligt", 1))
	s := <-w.tried
	if !strings.Contains(s.Error, path+":1:10: limits.in_fligt: unknown field") || s.Generation != 1 || s.Config.Limits.InFlight != 1 {
		t.Fatalf("status is %+v", s)
	}
	if !strings.Contains(w.log.String(), "limits.in_fligt") {
		t.Errorf("the log does not say why: %s", w.log)
	}
	if len(w.applied) > 0 {
		t.Error("a bad file was applied")
	}
	if err := w.live.Reload(t.Context()); err == nil || err.Error() != s.Error {
		t.Errorf("Reload says %v", err)
	}
	<-w.tried
	write(t, path, inFlightConfig(3))
	w.want(<-w.applied, 3)
	if s := <-w.tried; s.Error != "" || s.Generation != 2 || !reflect.DeepEqual(s, w.live.Status()) {
		t.Errorf("status is %+v", s)
	}
}

func TestEqualContentIsSkippedUnlessAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, inFlightConfig(1))
	w := watch(t, path)
	write(t, path, inFlightConfig(1))
	write(t, path, inFlightConfig(2))
	w.want(<-w.applied, 2)
	if err := w.live.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want(<-w.applied, 2)
}

func TestWhatCannotChangeLiveIsSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, inFlightConfig(1))
	w := watch(t, path)
	write(t, path, "listen: \":1234\"\nkeys: {store: other.db}\n"+inFlightConfig(2))
	w.want(<-w.applied, 2)
	<-w.tried
	if !strings.Contains(w.log.String(), "listen, keys.store") {
		t.Errorf("the log does not say so: %s", w.log)
	}
}
