package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"sluice/admin"
	"sluice/config"
	"sluice/keys"
	"sluice/metrics"
	"sluice/pool"
	"sluice/proxy"
)

// serve runs the gateway until ctx ends, then drains it.
func serve(ctx context.Context, path string, cfg *config.Config, digest config.Digest, stderr io.Writer, hup <-chan os.Signal, ready func(data, admin net.Addr)) error {
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	started := time.Now()
	clock := func() time.Duration { return time.Since(started) }
	store, err := keys.Open(cfg.Keys.Store, clock)
	if err != nil {
		return err
	}
	defer store.Close()
	m := metrics.New()
	m.Keys(func() map[string]int { return store.States(time.Now()) })
	upstreams := pool.New(m, log, clock, nil)
	defer upstreams.Close()
	gateway := proxy.New(proxy.Parts{Keys: store, Pool: upstreams, Metrics: m, Log: log, Clock: clock,
		Memory: boundMemory(log) * 7 / 10, Access: stderr})
	live, err := config.NewLive(path, cfg, digest, log, gateway.Apply, func(s config.Status) { m.Reloaded(s.Error == "", s.Generation, s.LoadedAt) })
	if err != nil {
		return err
	}
	m.Loaded(true, 1, live.Status().LoadedAt)

	data, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	control, err := net.Listen("tcp", cfg.Admin.Listen)
	if err != nil {
		data.Close()
		return fmt.Errorf("cannot listen for admins: %w", err)
	}
	operator := admin.New(admin.Parts{Live: live, Keys: store, Proxy: gateway, Metrics: m, Log: log, Clock: clock})
	gatewayEnd, operatorEnd := gateway.Start(secured(data, live, dataTLS)), operator.Start(secured(control, live, adminTLS))
	log.Info("sluice serves", "listen", data.Addr().String(), "admin", control.Addr().String(), "keys", store.Count())
	if ready != nil {
		ready(data.Addr(), control.Addr())
	}
	err = attend(ctx, live, log, hup, gatewayEnd, operatorEnd)

	log.Info("sluice drains")
	end, cancel := context.WithTimeout(context.Background(), live.Status().Config.Timeouts.Shutdown.Std())
	defer cancel()
	gateway.Shutdown(end)
	operator.Shutdown(end)
	log.Info("sluice has ended")
	return err
}

// attend reloads on SIGHUP and on changes of the file until ctx ends or a port fails.
func attend(ctx context.Context, live *config.Live, log *slog.Logger, hup <-chan os.Signal, dataEnd, adminEnd <-chan error) error {
	watch, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		if err := live.Watch(watch); err != nil {
			log.Error("the configuration is not watched; SIGHUP and POST /api/reload reload it", "error", err)
		}
	})
	defer watching.Wait()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			_ = live.Reload() // logged there
		case err := <-dataEnd:
			return fmt.Errorf("the data port failed: %w", err)
		case err := <-adminEnd:
			return fmt.Errorf("the admin port failed: %w", err)
		}
	}
}
