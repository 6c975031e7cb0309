package config

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Live is the configuration of a running process: loaded once, then again whenever the
// file changes or somebody asks.
type Live struct {
	path     string
	log      *slog.Logger
	apply    func(*Config) error
	reloaded func(Status)

	mu     sync.Mutex // one reload at a time
	digest Digest
	status Status
	first  *Config // what cannot change live is as it was in this one

	statusMu sync.Mutex
	shown    Status
}

// Status is what a Live says of itself.
type Status struct {
	Config *Config `json:"config"`
	// Generation counts the configurations that took effect, from 1.
	Generation int       `json:"generation"`
	LoadedAt   time.Time `json:"loaded_at"`
	// Error is why the newest content of the file is not in effect; empty when it is.
	Error   string    `json:"error"`
	TriedAt time.Time `json:"tried_at"`
	// Restart names what Config changes and only the next start of the process makes effective.
	Restart []string `json:"restart,omitempty"`
}

// NewLive begins with cfg, which Load has read from path. apply makes a configuration take
// effect or leaves everything as it was and says why; it is called here for the first time,
// and never twice at once. reloaded is told of every later attempt.
func NewLive(path string, cfg *Config, digest Digest, log *slog.Logger, apply func(*Config) error, reloaded func(Status)) (*Live, error) {
	l := &Live{path: path, log: log, apply: apply, reloaded: reloaded, first: cfg}
	if err := l.effect(cfg, digest, nil); err != nil {
		return nil, err
	}
	l.warn(cfg)
	return l, nil
}

// Status is the newest.
func (l *Live) Status() Status {
	l.statusMu.Lock()
	defer l.statusMu.Unlock()
	return l.shown
}

// Reload loads the file now. The error says what is wrong with it; the old configuration
// is then still in effect. Once ctx has ended nothing changes.
func (l *Live) Reload(ctx context.Context) error { return l.load(ctx, true) }

func (l *Live) load(ctx context.Context, force bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	cfg, digest, err := Load(ctx, l.path)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !force && digest == l.digest {
		return nil
	}
	err = l.effect(cfg, digest, err)
	l.report(cfg, err)
	return err
}

// effect applies what was loaded, or keeps why it could not be.
func (l *Live) effect(cfg *Config, digest Digest, err error) error {
	l.digest = digest
	if err == nil {
		err = l.apply(cfg)
	}
	l.status.TriedAt = time.Now().UTC()
	if err != nil {
		l.status.Error = err.Error()
	} else {
		l.status = Status{Config: cfg, Generation: l.status.Generation + 1, LoadedAt: l.status.TriedAt, TriedAt: l.status.TriedAt,
			Restart: fixedChanges(l.first, cfg)}
	}
	l.statusMu.Lock()
	l.shown = l.status
	l.statusMu.Unlock()
	return err
}

func (l *Live) report(cfg *Config, err error) {
	defer l.reloaded(l.status)
	if err != nil {
		l.log.Error("config not reloaded; the old one stays in effect", "file", l.path, "error", err)
		return
	}
	if len(l.status.Restart) > 0 {
		l.log.Warn("config has changes that need a restart", "fields", strings.Join(l.status.Restart, ", "))
	}
	l.warn(cfg)
	l.log.Info("config reloaded", "file", l.path, "generation", l.status.Generation)
}

func (l *Live) warn(cfg *Config) {
	for _, warning := range cfg.Warnings() {
		l.log.Warn("config may be wrong", "warning", warning)
	}
}

// fixedChanges names the changed fields that a running process cannot follow.
func fixedChanges(before, after *Config) (fields []string) {
	for _, f := range []struct {
		name    string
		changed bool
	}{
		{"listen", before.Listen != after.Listen},
		{"admin.listen", before.Admin.Listen != after.Admin.Listen},
		{"tls", (before.TLS == nil) != (after.TLS == nil)},
		{"admin.tls", (before.Admin.TLS == nil) != (after.Admin.TLS == nil)},
		{"keys.store", before.Keys.Store != after.Keys.Store},
		{"limits.head", before.Limits.Head != after.Limits.Head},
	} {
		if f.changed {
			fields = append(fields, f.name)
		}
	}
	return fields
}

const (
	// settle is how long the folder must be quiet before the file is read: an editor
	// may write in two steps.
	settle = 100 * time.Millisecond
	// settleMost bounds the wait in a folder that is never quiet.
	settleMost = time.Second
	// lookAgain is how often the file is looked at without a sign: a link on the way to
	// its folder, or the folder itself, can be replaced unseen.
	lookAgain = 10 * time.Second
)

// Watch reloads whenever the file's content changes, until ctx ends. It watches folders,
// not the file: a rename over it, or the swap of a symlink on the way to it (a
// Kubernetes ConfigMap), would leave a watch on the file behind.
func (l *Live) Watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("cannot watch config: %w", err)
	}
	defer w.Close()
	if err := l.addFolders(w); err != nil {
		return fmt.Errorf("cannot watch config: %w", err)
	}
	// The file may have changed between its first load and the watch, and be half written
	// now; so it is read once the folder is quiet, as after any other change.
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	var first time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-w.Events:
			if !ok {
				return nil
			}
			if event.Op == fsnotify.Chmod {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			quiet.Reset(max(0, min(settle, settleMost-time.Since(first))))
		case err, ok := <-w.Errors:
			if !ok {
				return nil
			}
			l.log.Warn("watching the config: events may have been lost", "error", err)
			quiet.Reset(settle)
		case <-quiet.C:
			first = time.Time{}
			if err := l.addFolders(w); err != nil {
				l.log.Warn("cannot watch config", "error", err)
			}
			_ = l.load(ctx, false) // logged there
		case <-again.C:
			quiet.Reset(settle)
		}
	}
}

// addFolders watches the folders of the file and of the files that it names and, where those are
// others, the folders of what they point at now.
func (l *Live) addFolders(w *fsnotify.Watcher) error {
	if err := addFolder(w, l.path); err != nil {
		return err
	}
	for _, path := range l.Status().Config.files {
		_ = addFolder(w, path) // it may have gone again; it is looked at anyway
	}
	return nil
}

func addFolder(w *fsnotify.Watcher, path string) error {
	folder := filepath.Dir(path)
	if err := w.Add(folder); err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil && filepath.Dir(real) != folder {
		return w.Add(filepath.Dir(real))
	}
	return nil
}
