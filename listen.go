package main

import (
	"crypto/tls"
	"net"
	"sync/atomic"

	"sluice/config"
)

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

func dataTLS(c *config.Config) *config.TLS { return c.TLS }

func adminTLS(c *config.Config) *config.TLS { return c.Admin.TLS }
