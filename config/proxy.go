package config

import (
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// ProxyURL is the address of a forward proxy, of scheme http, https or socks5; a zero one is no
// proxy. It is printed as a URL is.
type ProxyURL struct{ URL }

// parseProxy reads what HTTPS_PROXY may have too: a URL, or host:port alone.
func parseProxy(text string) (ProxyURL, bool) {
	if text == "" {
		return ProxyURL{}, true
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return ProxyURL{}, false
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return ProxyURL{URL{*u}}, true
	}
	return ProxyURL{}, false
}

// proxyFor is the environment's proxy for an upstream that names none of its own: HTTPS_PROXY or
// HTTP_PROXY by the scheme of its address, in capitals or not, unless NO_PROXY has its host.
func (d *decoder) proxyFor(u *Upstream) (ProxyURL, bool) {
	env := func(name string) string {
		if v, ok := d.env(name); ok && v != "" {
			return v
		}
		v, _ := d.env(strings.ToLower(name))
		return v
	}
	settings := httpproxy.Config{HTTPProxy: env("HTTP_PROXY"), HTTPSProxy: env("HTTPS_PROXY"), NoProxy: env("NO_PROXY")}
	found, err := settings.ProxyFunc()(&u.BaseURL.URL)
	if err != nil {
		return ProxyURL{}, false
	}
	if found == nil {
		return ProxyURL{}, true
	}
	return parseProxy(found.String())
}
