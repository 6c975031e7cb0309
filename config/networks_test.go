package config

import (
	"fmt"
	"testing"
)

func TestTrustedProxies(t *testing.T) {
	cfg := mustParse(t, minimal+`trusted_proxies: [10.1.2.3/8, 192.0.2.1, "fd00::1/8", "::1", "::ffff:198.51.100.0/120", "::ffff:203.0.113.7", "${NET:-172.16.0.0/12}", 0.0.0.0/0]`)
	const want = "[10.0.0.0/8 192.0.2.1/32 fd00::/8 ::1/128 198.51.100.0/24 203.0.113.7/32 172.16.0.0/12 0.0.0.0/0]"
	if got := fmt.Sprint(cfg.Trusted()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := mustParse(t, minimal).Trusted(); got != nil {
		t.Errorf("by default %s are trusted", got)
	}
}
