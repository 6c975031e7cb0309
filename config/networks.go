package config

import (
	"net/netip"
	"strconv"
)

// Trusted are the networks of TrustedProxies. Those of IPv4 are never in their IPv6-mapped form.
func (c *Config) Trusted() []netip.Prefix { return c.trusted }

// networks reads a list of networks. A single address is a network of one.
func (d *decoder) networks(path string, list []string) (networks []netip.Prefix) {
	for i, text := range list {
		at := path + "[" + strconv.Itoa(i) + "]"
		network, ok := parseNetwork(text)
		switch {
		case ok:
			networks = append(networks, network)
		case !d.refused(at):
			d.find(at, `must be a network such as "10.0.0.0/8" or "fd00::/8", or one address; not %s`, d.shown(at, text))
		}
	}
	return networks
}

func parseNetwork(text string) (network netip.Prefix, ok bool) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), addr.Zone() == ""
	}
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	if network.Addr().Is4In6() && network.Bits() >= 96 {
		network = netip.PrefixFrom(network.Addr().Unmap(), network.Bits()-96)
	}
	return network.Masked(), true
}
