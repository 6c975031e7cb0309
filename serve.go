package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"sluice/admin"
	"sluice/config"
	"sluice/history"
	"sluice/keys"
	"sluice/keys/shared"
	"sluice/metrics"
	"sluice/pool"
	"sluice/proxy"
)

// idleAtEnd is how long a connection may be idle once the process has been told to end. While
// another has taken over nothing waits for this one, and it may be as long as the drain.
const idleAtEnd = time.Second

// watchEnd is how long the watch of the configuration may take to end. A file system that does not
// answer holds it, and must not hold the drain.
const watchEnd = time.Second

// service is what serve runs.
type service struct {
	path    string // of the configuration
	cfg     *config.Config
	digest  config.Digest
	stderr  io.Writer
	signals <-chan os.Signal
	// sockets are those that are open already; nil for the configuration's.
	sockets *sockets
	// fixed is why another process cannot take over; nil if one can.
	fixed error
	// ready, if not nil, is told the addresses once the process serves.
	ready func(data, admin net.Addr)
}

// serve runs the gateway until ctx ends or another process has taken over, then drains it.
func serve(ctx context.Context, run service) error {
	cfg := run.cfg
	m := metrics.New()
	log := slog.New(slog.NewJSONHandler(countedLog{run.stderr, m.LogLinesDropped.Inc}, nil))
	before, err := findPredecessor()
	if err != nil {
		return err
	}
	defer before.close()
	if err := before.tell(saysLoaded); err != nil {
		return err
	}
	started := time.Now()
	clock := func() time.Duration { return time.Since(started) }
	open := run.sockets
	if open == nil {
		if open, err = listen(cfg, log); err != nil { // before the key store is made: a start that fails here changes no file
			return err
		}
		defer open.close()
	}
	at := cfg.Keys.Store.In(filepath.Dir(run.path))
	store, err := openStore(at, clock, log)
	if err != nil {
		return err
	}
	defer store.Close()
	m.Keys(func() map[string]int { return store.States(time.Now()) })
	upstreams := pool.New(m, log, clock, nil)
	defer upstreams.Close()
	gateway := proxy.New(proxy.Parts{Keys: store, Pool: upstreams, Metrics: m, Log: log, Clock: clock,
		Memory: boundMemory(log) * 7 / 10, Access: run.stderr})
	book := history.New(history.Parts{Ring: gateway.Recorder().Ring, InFlight: gateway.InFlight, States: m.UpstreamStates, Log: log, Path: besideKeys(at)})
	live, err := config.NewLive(run.path, cfg, run.digest, log, gateway.Apply, func(s config.Status) {
		m.Reloaded(s.Error == "", s.Generation, s.LoadedAt)
		markReload(book, s)
	})
	if err != nil {
		return err
	}
	stopBook := book.Start()
	defer stopBook()
	m.Loaded(true, 1, live.Status().LoadedAt)
	m.Certificates(func() map[string]time.Time { return certificateEnds(live.Status().Config) })
	m.Build(version())
	if _, shared := store.Sharing(); shared {
		m.Sharing(func() metrics.Sharing {
			s, _ := store.Sharing()
			return metrics.Sharing(s)
		})
	}

	operator := admin.New(admin.Parts{Live: live, Keys: store, Proxy: gateway, Pool: upstreams, Metrics: m, Log: log, Clock: clock, Data: open.data.Addr(),
		Series: book, Version: version()})
	p := &running{live: live, log: log, signals: run.signals, fixed: run.fixed, sockets: open, store: store, book: book,
		dataEnd: gateway.Start(secured(open.data, live, dataTLS)), adminEnd: operator.Start(secured(open.admin, live, adminTLS))}
	if tcp, ok := open.data.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		log.Info("the data port is on all interfaces; give listen an address, such as 127.0.0.1:8080, to have it on one", "listen", cfg.Listen)
	}
	if store.Count() == 0 {
		log.Info("the key store has no keys yet; sluice keys create makes one", "store", at.String())
	}
	log.Info("sluice serves", "listen", open.data.Addr().String(), "admin", open.admin.Addr().String(), "keys", store.Count(), "pid", os.Getpid(), "version", version())
	if err := before.tell(saysServing); err != nil {
		log.Warn("nobody hears that this process serves", "error", err)
	}
	p.notify(fmt.Sprintf("MAINPID=%d\n%s", os.Getpid(), daemon.SdNotifyReady))
	if run.ready != nil {
		run.ready(open.data.Addr(), open.admin.Addr())
	}
	replaced, err := p.attend(ctx)

	log.Info("sluice drains", "replaced", replaced)
	most := live.Status().Config.Timeouts.Shutdown.Std()
	end, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	if replaced {
		stopBook() // its file is the other process's now
		var admin sync.WaitGroup
		admin.Go(func() { operator.Shutdown(end) }) // now: what is asked there concerns the other process
		gateway.Shutdown(end, most)
		admin.Wait()
	} else {
		p.notify(daemon.SdNotifyStopping)
		gateway.Shutdown(end, idleAtEnd)
		operator.Shutdown(end)
		stopBook()
		book.Save()
	}
	log.Info("sluice has ended")
	return err
}

// besideKeys is the file of the series: beside the key store's. A shared store has none.
func besideKeys(at config.Location) string {
	if at.Shared() {
		return ""
	}
	return string(at) + ".series"
}

// markReload has the series show a reload at its time.
func markReload(book *history.Book, s config.Status) {
	if s.Error != "" {
		first, _, _ := strings.Cut(s.Error, "\n")
		book.Mark("reload_failed", "the configuration was not reloaded: "+first)
		return
	}
	book.Mark("reload", fmt.Sprintf("configuration %d took effect", s.Generation))
}

// countedLog passes the lines of the log on and counts those that could not be written.
type countedLog struct {
	out  io.Writer
	lost func()
}

func (l countedLog) Write(line []byte) (int, error) {
	n, err := l.out.Write(line)
	if err != nil {
		l.lost()
	}
	return n, err
}

func openStore(at config.Location, clock func() time.Duration, log *slog.Logger) (*keys.Store, error) {
	if at.Shared() {
		return shared.Open(string(at), clock, log)
	}
	return keys.Open(string(at), clock)
}

// running is what attend looks after.
type running struct {
	live              *config.Live
	log               *slog.Logger
	signals           <-chan os.Signal
	fixed             error // see service
	sockets           *sockets
	store             *keys.Store
	book              *history.Book
	dataEnd, adminEnd <-chan error
}

// attend reloads on SIGHUP and on changes of the file, and starts a successor on SIGUSR2, until ctx
// ends, the successor serves, or a port fails.
func (p *running) attend(ctx context.Context) (replaced bool, err error) {
	watch, cancel := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		if err := p.live.Watch(watch); err != nil {
			p.log.Error("the configuration is not watched; SIGHUP and POST /api/reload reload it", "error", err)
		}
	}()
	defer func() {
		cancel()
		select {
		case <-watching:
		case <-time.After(watchEnd):
			p.log.Warn("watching the configuration has not ended; does its file system answer?")
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case s := <-p.signals:
			if s == syscall.SIGHUP {
				_ = p.live.Reload(ctx) // logged there
				continue
			}
			if p.fixed != nil {
				p.log.Error("SIGUSR2 is refused; this process goes on", "error", p.fixed)
				continue
			}
			p.log.Info("another process is started to take over")
			p.book.Save() // the other goes on with it
			if err := replace(ctx, p.sockets, p.store); err == nil {
				return true, nil
			} else {
				p.log.Error("nobody has taken over; this process goes on", "error", err)
			}
		case err := <-p.dataEnd:
			return false, fmt.Errorf("the data port failed: %w", err)
		case err := <-p.adminEnd:
			return false, fmt.Errorf("the admin port failed: %w", err)
		}
	}
}

// notify tells the service manager, if one listens (sd_notify(3)).
func (p *running) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		p.log.Warn("cannot tell the service manager", "error", err)
	}
}
