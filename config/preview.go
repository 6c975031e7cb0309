package config

import "context"

// Preview is what a reload would find now.
type Preview struct {
	// Config is what would take effect, nil where Err says why nothing would.
	Config *Config
	Err    error
	// Changed: the file, or one that it names, is not as it was when it was last loaded.
	Changed bool
	// Restart are the changed fields that take effect at the next start only.
	Restart []string
}

// Preview reads the file and changes nothing.
func (l *Live) Preview(ctx context.Context) Preview {
	cfg, digest, err := Load(ctx, l.path)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := Preview{Config: cfg, Err: err, Changed: digest != l.digest}
	if err == nil {
		p.Restart = fixedChanges(l.first, cfg)
	}
	return p
}
