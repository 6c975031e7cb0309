package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"sluice/config"
)

// sockets are what a process listens on.
type sockets struct{ data, admin net.Listener }

func (s *sockets) close() {
	for _, ln := range [...]net.Listener{s.data, s.admin} {
		if ln != nil {
			ln.Close()
		}
	}
}

// listen opens the sockets, but for those that were handed to the process.
func listen(cfg *config.Config, log *slog.Logger) (*sockets, error) {
	s, err := inherited()
	if err != nil {
		return nil, err
	}
	for _, port := range [...]struct {
		name, address string
		ln            *net.Listener
	}{{"listen", cfg.Listen, &s.data}, {"admin.listen", cfg.Admin.Listen, &s.admin}} {
		if *port.ln != nil {
			log.Info("a socket was handed over; its address goes before the configuration's", "field", port.name, "address", (*port.ln).Addr().String())
			continue
		}
		if *port.ln, err = net.Listen("tcp", port.address); err != nil {
			s.close()
			return nil, fmt.Errorf("cannot listen (%s): %w", port.name, err)
		}
	}
	return s, nil
}

// inherited are the sockets that systemd (sd_listen_fds(3)) or the process before this one has
// opened: those called data and admin, or else the first and the second.
func inherited() (*sockets, error) {
	files := activation.Files(true)
	s := &sockets{}
	for i, f := range files {
		ln, err := net.FileListener(f)
		f.Close()
		if err != nil {
			s.close()
			return nil, fmt.Errorf("cannot use the socket %s of LISTEN_FDS: %w", f.Name(), err)
		}
		to := &s.data
		if f.Name() == "admin" || i > 0 && f.Name() != "data" {
			to = &s.admin
		}
		if *to != nil {
			ln.Close()
			s.close()
			return nil, errors.New("LISTEN_FDS has more than a socket called data and one called admin")
		}
		*to = ln
	}
	return s, nil
}

// secured serves TLS on ln if the configuration has it for this port, each handshake with what is
// in effect then. Whether there is TLS is decided once.
func secured(ln net.Listener, live *config.Live, port func(*config.Config) *config.TLS) net.Listener {
	var last atomic.Pointer[config.TLS]
	last.Store(port(live.Status().Config))
	if last.Load() == nil {
		return ln
	}
	return tls.NewListener(ln, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if now := port(live.Status().Config); now != nil {
			last.Store(now)
		}
		return last.Load().Server(), nil
	}})
}

// certificateEnds is until when the certificates of the ports hold.
func certificateEnds(c *config.Config) map[string]time.Time {
	ends := map[string]time.Time{}
	for name, t := range map[string]*config.TLS{"data": c.TLS, "admin": c.Admin.TLS} {
		if t != nil {
			ends[name] = t.Ends()
		}
	}
	return ends
}

func dataTLS(c *config.Config) *config.TLS { return c.TLS }

func adminTLS(c *config.Config) *config.TLS { return c.Admin.TLS }
