package config

import (
	"cmp"
	"regexp"
	"strings"
)

// Unset reports whether u names an api_key and has none: what the file takes it from is empty. Without a
// credential nothing can be asked of such an upstream. variable is the one of the environment that should hold
// it, "" if the file names none.
func (u *Upstream) Unset() (variable string, unset bool) { return u.variable, u.unset }

var variableName = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(:-)?\}`)

// checkCredential notes an api_key that is given and empty. An upstream that names none wants none, and one
// whose credential stands elsewhere has one.
func (d *decoder) checkCredential(path string, u *Upstream) {
	raw, empty := d.emptied[path]
	if !empty || u.APIKey != "" || u.BaseURL.User != nil {
		return
	}
	for name := range u.Headers {
		if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), u.AuthHeader) {
			return
		}
	}
	u.unset = true
	if names := variableName.FindStringSubmatch(raw); names != nil {
		u.variable = names[1]
	}
	d.warn(path, cmp.Or(u.variable, "what it is taken from")+
		" is empty or not set, so that nothing is sent to this upstream; leave api_key out if it needs none")
}
