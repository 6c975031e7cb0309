package config

import (
	"cmp"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const minAdminToken = 16

var (
	upstreamName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	// A model's name travels in a header, where , and ; have a meaning.
	modelName      = regexp.MustCompile(`^[!-+\--:<-~]{1,200}$`)
	headerName     = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")
	fieldName      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)
	portNumber     = regexp.MustCompile(`^[0-9]{1,5}$`)
	databaseNumber = regexp.MustCompile(`^(/[0-9]{1,4})?/?$`)
	versionPath    = regexp.MustCompile(`/v[0-9]+[a-z0-9]*(/|$)`)
	pathName       = regexp.MustCompile(`^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$`)
)

// ownFields are members of a request's body that the gateway reads, and writes where it must.
var ownFields = []string{"stream", "gateway", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"}

// fitBody lowers the default of limits.body to a limits.memory that has no room for it.
func (d *decoder) fitBody(l *Limits) {
	_, body := d.positions["limits.body"]
	if _, memory := d.positions["limits.memory"]; memory && !body {
		l.Body = min(l.Body, max(l.Memory, leastMemory))
	}
}

// leastMemory is the least that limits.memory may be.
const leastMemory = 16 << 20

// check adds what is wrong with values that are of the right type.
func (d *decoder) check(cfg *Config) {
	d.checkAddress("listen", cfg.Listen)
	d.checkAddress("admin.listen", cfg.Admin.Listen)
	if cfg.Listen == cfg.Admin.Listen && !strings.HasSuffix(cfg.Listen, ":0") {
		d.find("admin.listen", "must not be the same as listen")
	}
	switch token := cfg.Admin.Token.Reveal(); {
	case d.refused("admin.token"):
	case token == "":
		d.find("admin.token", "is needed: at least %d characters, for instance ${SLUICE_ADMIN_TOKEN}", minAdminToken)
	case len(token) < minAdminToken:
		d.find("admin.token", "must have at least %d characters, not %d", minAdminToken, len(token))
	case !printable(token):
		d.find("admin.token", "must not have spaces or control characters")
	}
	d.checkTLS("tls", cfg.TLS)
	d.checkTLS("admin.tls", cfg.Admin.TLS)
	d.checkStore("keys.store", cfg.Keys.Store)
	d.checkWithoutStore("keys.without_store", &cfg.Keys)
	d.checkSize("limits.body", cfg.Limits.Body, 1<<10, 1<<30)
	d.checkSize("limits.response", cfg.Limits.Response, 1<<10, 1<<30)
	d.checkSize("limits.head", cfg.Limits.Head, 4<<10, 1<<20)
	d.checkSize("limits.upstream_head", cfg.Limits.UpstreamHead, 4<<10, 1<<20)
	if _, given := d.positions["limits.memory"]; given {
		d.checkSize("limits.memory", cfg.Limits.Memory, max(leastMemory, cfg.Limits.Body), 1<<50)
	}
	d.checkInt("keys.default_reservation", cfg.Keys.DefaultReservation, 0, 1_000_000_000)
	d.checkInt("limits.in_flight", cfg.Limits.InFlight, 1, 10_000_000)
	d.checkConnections("connections", cfg.Connections)
	d.checkInt("retry.max_retries", cfg.Retry.MaxRetries, 0, 31)
	if cfg.Retry.Base > cfg.Retry.Max {
		d.find("retry.base", "must not be longer than retry.max (%s)", cfg.Retry.Max)
	}
	d.checkInt("breaker.failures", cfg.Breaker.Failures, 1, 1_000_000)
	for i, p := range cfg.Paths {
		d.checkPath("paths["+strconv.Itoa(i)+"]", p)
	}
	for i, origin := range cfg.CORS.Origins {
		d.checkOrigin("cors.origins["+strconv.Itoa(i)+"]", origin)
	}
	cfg.trusted = d.networks("trusted_proxies", cfg.TrustedProxies)
	d.checkUpstreams(cfg)
	d.checkModels(cfg)
}

func (d *decoder) find(path, format string, args ...any) { d.add(d.at(path), path, format, args...) }

// warn notes what is allowed and most likely a mistake.
func (d *decoder) warn(path, message string) {
	if len(d.warnings) < shownFindings {
		at := d.at(path)
		d.warnings = append(d.warnings, Finding{Line: at.line, Column: at.column, Path: path, Message: message})
	}
}

// refused reports whether path already has a finding, so that one mistake is one line.
func (d *decoder) refused(path string) bool { return d.refusedPaths[path] }

func (d *decoder) checkAddress(path, address string) {
	_, port, err := net.SplitHostPort(address)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || n > 65535 || !portNumber.MatchString(port) {
		d.find(path, `must be "host:port" or ":port", not %s`, d.shown(path, address))
	}
}

func (d *decoder) checkStore(path string, store Location) {
	switch u, err := url.Parse(string(store)); {
	case store == "":
		d.find(path, "must name a file, or the URL of a shared store such as redis://host:6379/0")
	case !store.Shared():
	case err != nil, u.Scheme != "redis" && u.Scheme != "rediss", u.Hostname() == "", u.Fragment != "",
		!databaseNumber.MatchString(u.Path): // not quoted: a password may be in it
		d.find(path, "must be a URL such as redis://host:6379/0 or rediss://user:password@host:6379/0")
	}
}

func (d *decoder) checkWithoutStore(path string, keys *Keys) {
	_, given := d.positions[path]
	switch rule := keys.WithoutStore; {
	case d.refused(path):
	case rule != Share && rule != Strict:
		d.find(path, `must be "share" or "strict", not %s`, d.shown(path, rule))
	case given && !keys.Store.Shared():
		d.warn(path, "has no effect with a file as keys.store; it is for one that several nodes share, such as redis://host:6379/0")
	}
}

func (d *decoder) checkSize(path string, size, low, high Size) {
	if size < low || size > high {
		l, _ := low.MarshalText()
		h, _ := high.MarshalText()
		d.find(path, "must be from %s to %s", l, h)
	}
}

func (d *decoder) checkInt(path string, n, low, high int) {
	if n < low || n > high {
		d.find(path, "must be from %d to %d, not %d", low, high, n)
	}
}

func (d *decoder) checkConnections(path string, c Connections) {
	if path += ".max_age"; c.MaxAge > 0 && c.MaxAge < minConnectionAge && !d.refused(path) {
		d.find(path, "must be at least %s, not %s", minConnectionAge, c.MaxAge)
	}
}

func (d *decoder) checkPath(path, value string) {
	switch {
	case !pathName.MatchString(value):
		d.find(path, `must be the part after /v1, such as "/images/edits", not %s`, d.shown(path, value))
	case value == "/key" || value == "/models" || strings.HasPrefix(value, "/models/"):
		d.find(path, "%s is the gateway's own", d.shown(path, value))
	}
}

func (d *decoder) checkOrigin(path, origin string) {
	u, err := url.Parse(origin)
	if origin != "*" && (err != nil || u.Host == "" || origin != strings.ToLower(u.Scheme+"://"+u.Host)) && !d.refused(path) {
		d.find(path, `must be an origin as browsers send it, such as "https://app.example" or "http://localhost:3000", or "*" for all; not %s`, d.shown(path, origin))
	}
}

func (d *decoder) checkUpstreams(cfg *Config) {
	if len(cfg.Upstreams) == 0 && !d.refused("upstreams") {
		d.find("upstreams", "at least one upstream is needed")
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Upstreams)) {
		path, u := "upstreams."+name, cfg.Upstreams[name]
		if !upstreamName.MatchString(name) {
			d.find(path, "an upstream's name has 1 to 64 letters, digits, dots, dashes and underscores")
		}
		if u.BaseURL.Host == "" && !d.refused(path+".base_url") {
			d.find(path+".base_url", "is needed, such as https://api.openai.com/v1")
		}
		if !printable(u.APIKey.Reveal()) {
			d.find(path+".api_key", "must not have spaces or control characters")
		}
		d.checkCredential(path+".api_key", u)
		d.checkBaseURL(path+".base_url", &u.BaseURL)
		if u.Proxy == (ProxyURL{}) && u.BaseURL.Host != "" {
			var ok bool
			if u.Proxy, ok = d.proxyFor(u); !ok && !d.refused(path+".proxy") {
				d.find(path, "the environment's HTTPS_PROXY or HTTP_PROXY is no URL of a proxy")
			}
		}
		if _, given := d.positions[path+".ca"]; given {
			u.roots, u.ca = d.certificates(path+".ca", u.CA)
		}
		if _, given := d.positions[path+".max_in_flight"]; given {
			d.checkInt(path+".max_in_flight", u.MaxInFlight, 1, 10_000_000)
		}
		switch field := u.ModelField; {
		case field == "":
		case !fieldName.MatchString(field):
			d.find(path+".model_field", "must be a name of letters, digits, dots, dashes and underscores")
		case slices.Contains(ownFields, strings.ToLower(field)):
			d.find(path+".model_field", "%s has a meaning of its own", field)
		}
		d.checkConnections(path+".connections", u.Connections)
		d.checkHeaders(path, u)
	}
}

// checkBaseURL refuses what would not be asked for as it is written.
func (d *decoder) checkBaseURL(path string, u *URL) {
	if u.Host == "" {
		return // said
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			d.find(path, "its port must be from 1 to 65535")
		}
	}
	if strings.ContainsAny(u.Hostname(), ", ") {
		d.find(path, "must name one host")
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(u.Path, "/"), "/") {
		if segment == "." || segment == ".." {
			d.find(path, `its path must not have "." or ".." segments`)
			return
		}
	}
	if strings.Contains(u.Path, "//") {
		d.find(path, `its path must not have "//"`)
	}
	if d.refused(path) {
		return
	}
	switch base := strings.TrimSuffix(u.Path, "/"); {
	case slices.Contains([]string{"completions", "messages", "responses", "embeddings"}, base[strings.LastIndexByte(base, '/')+1:]):
		d.warn(path, "ends in the path of one endpoint, which is appended to it again; end it before, as in https://api.openai.com/v1")
	case !versionPath.MatchString(base):
		d.warn(path, "has no version in its path; most providers need one, as in https://api.openai.com/v1")
	}
}

func (d *decoder) checkModels(cfg *Config) {
	if len(cfg.Models) == 0 && !d.refused("models") {
		d.find("models", "at least one model is needed")
	}
	upstreams := enumerated(slices.Sorted(maps.Keys(cfg.Upstreams)), ", ")
	for _, name := range slices.Sorted(maps.Keys(cfg.Models)) {
		path, m := "models."+name, cfg.Models[name]
		d.checkModelName(path, name)
		if len(m.Targets) == 0 && !d.refused(path+".targets") {
			d.find(path+".targets", "at least one target is needed")
		}
		type pair struct{ upstream, model string }
		seen := map[pair]int{}
		for i, t := range m.Targets {
			at := path + ".targets[" + strconv.Itoa(i) + "]"
			if t == nil {
				d.find(at, "is empty; a target is {upstream: name, model: name}")
				continue
			}
			switch _, ok := cfg.Upstreams[t.Upstream]; {
			case ok, d.refused(at + ".upstream"):
			case t.Upstream == "":
				d.find(at+".upstream", "is needed; upstreams are %s", upstreams)
			default:
				d.find(at+".upstream", "no upstream is called %s; upstreams are %s", d.shown(at+".upstream", t.Upstream), upstreams)
			}
			if strings.ContainsFunc(t.Model, unseen) || len(t.Model) > 200 || !utf8.ValidString(t.Model) {
				d.find(at+".model", "must be at most 200 bytes of UTF-8 without control or invisible characters")
			}
			if strings.Contains(t.Model, "*") {
				d.find(at+".model", "must be one model's name; a pattern (*) is not understood")
			}
			d.checkInt(at+".weight", t.Weight, 1, 1_000_000)
			same := pair{t.Upstream, cmp.Or(t.Model, name)}
			if j, again := seen[same]; again {
				d.find(at, "is the same as targets[%d]; give that one more weight instead", j)
			} else {
				seen[same] = i
			}
		}
		if m.MaxRetries != nil {
			d.checkInt(path+".max_retries", *m.MaxRetries, 0, 31)
		}
		d.checkFallbacks(path+".fallbacks", m.Fallbacks, cfg)
	}
	d.checkCycles(cfg)
}

func (d *decoder) checkModelName(path, name string) {
	switch {
	case strings.Contains(name, "${"):
		d.find(path, "a name is not replaced from the environment; write the model's name out")
	case strings.Contains(name, "*"):
		d.find(path, "must be one model's name; a pattern (*) is not understood, so give each model its own entry")
	case !modelName.MatchString(name):
		d.find(path, "a model's name has 1 to 200 visible ASCII characters without comma and semicolon")
	}
}

func (d *decoder) checkFallbacks(path string, fallbacks []string, cfg *Config) {
	if len(fallbacks) > 16 {
		d.find(path, "must name at most 16 models, not %d", len(fallbacks))
		return
	}
	for i, f := range fallbacks {
		at := path + "[" + strconv.Itoa(i) + "]"
		switch {
		case cfg.Models[f] == nil:
			d.find(at, "no model is called %s", d.shown(at, f))
		case slices.Contains(fallbacks[:i], f):
			d.find(at, "%s is named twice", d.shown(at, f))
		}
	}
}

// checkCycles finds models that fall back to themselves, each cycle once.
func (d *decoder) checkCycles(cfg *Config) {
	depth := map[string]int{} // of those that are being visited, by their place in trail
	done := map[string]bool{}
	var trail []string
	var visit func(name string)
	visit = func(name string) {
		depth[name] = len(trail)
		trail = append(trail, name)
		for i, f := range cfg.Models[name].Fallbacks {
			switch from, visiting := depth[f]; {
			case cfg.Models[f] == nil || done[f]:
			case visiting:
				cycle := enumerated(append(slices.Clone(trail[from:min(len(trail), from+maxListed+1)]), f), " → ")
				d.find("models."+name+".fallbacks["+strconv.Itoa(i)+"]", "falls back in a circle: %s", cycle)
			default:
				visit(f)
			}
		}
		trail = trail[:len(trail)-1]
		delete(depth, name)
		done[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Models)) {
		if !done[name] {
			visit(name)
		}
	}
}

// maxListed bounds how many names a finding lists.
const maxListed = 20

// enumerated is a list for a finding.
func enumerated(names []string, separator string) string {
	if len(names) > maxListed {
		names = append(slices.Clone(names[:maxListed]), "…")
	}
	return strings.Join(names, separator)
}

func control(r rune) bool { return r < 0x20 || r == 0x7f }

// unseen reports whether r has no shape of its own, or changes how the text around it is shown.
func unseen(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }

// printable reports whether s can stand in a header without being cut or joined.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= 0x20 || r >= 0x7f })
}
