package config

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME}, ${NAME:-default} and ${file:/path} in text; what they are
// replaced by is not looked at again. A relative path is relative to the config file's
// folder. False after a finding.
func (d *decoder) expand(path string, at position, text string) (string, bool) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		inside, after, closed := strings.Cut(rest, "}")
		if !closed {
			d.add(at, path, "${ without a closing }")
			return "", false
		}
		value, err := d.lookUp(inside)
		err = cmp.Or(err, d.putIn(len(before)+len(value)))
		if err != nil {
			d.add(at, path, "%v", err)
			return "", false
		}
		b.WriteString(value)
		text = after
	}
}

func (d *decoder) lookUp(inside string) (string, error) {
	if name, isFile := strings.CutPrefix(inside, "file:"); isFile {
		return d.readSecret(name)
	}
	name, fallback, hasFallback := strings.Cut(inside, ":-")
	if !envName.MatchString(name) {
		return "", errors.New("${…} is not understood; ${NAME}, ${NAME:-default} and ${file:/path} are")
	}
	if strings.Contains(fallback, "${") {
		return "", fmt.Errorf("the default of ${%s:-…} must not have another ${…} in it", name)
	}
	value, set := d.env(name)
	if set && (value != "" || !hasFallback) {
		return value, nil
	}
	if hasFallback {
		return fallback, nil
	}
	return "", fmt.Errorf("environment variable %s is not set; set it, or write ${%s:-default}", name, name)
}

func (d *decoder) readSecret(name string) (string, error) {
	b, err := d.readFile(name)
	if err != nil {
		return "", fmt.Errorf("cannot read ${file:…}: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// readFile reads a file that the configuration names.
func (d *decoder) readFile(name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(d.file), name)
	}
	d.files[name] = true
	b, err := readFile(d.ctx, name)
	if err != nil {
		return nil, err
	}
	d.addDigest(name, b)
	return b, nil
}

// putIn counts what is put in, and refuses more than maxPutIn: one line of the configuration can
// name a large file many times.
func (d *decoder) putIn(bytes int) error {
	d.expandedBytes += bytes
	if d.expandedBytes > maxPutIn {
		return errors.New("the files and environment variables that the configuration names have more than 16 MiB together")
	}
	return nil
}
