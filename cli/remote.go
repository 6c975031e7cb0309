package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice/config"
)

// remote is how a command finds the running sluice, and how it prints the answer.
type remote struct {
	admin, tokenFile, config string
	asJSON                   bool
}

// bind gives cmd and the commands under it the flags.
func (r *remote) bind(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.BoolVar(&r.asJSON, "json", false, "print JSON, for other programs")
	flags.StringVar(&r.admin, "admin", "", "the admin port's `URL`, in place of SLUICE_ADMIN (default "+defaultAdmin+")")
	flags.StringVar(&r.tokenFile, "token-file", "", "`FILE` with the admin token, in place of SLUICE_ADMIN_TOKEN")
	flags.StringVar(&r.config, "config", "", "take both from `FILE`, the configuration of the running sluice (default "+
		defaultConfig+" if neither is given elsewhere)")
	_ = cmd.RegisterFlagCompletionFunc("token-file", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault // any file
	})
	_ = cmd.MarkPersistentFlagFilename("config", "yaml", "yml")
}

// client is one of the admin port that flags, environment and configuration name, in this order.
func (r *remote) client(ctx context.Context) (*client, error) {
	admin := cmp.Or(r.admin, os.Getenv("SLUICE_ADMIN"))
	token := os.Getenv("SLUICE_ADMIN_TOKEN")
	if r.tokenFile != "" {
		text, err := os.ReadFile(r.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the admin token: %w", err)
		}
		token = strings.TrimSpace(string(text))
		if token == "" {
			return nil, fmt.Errorf("cannot read the admin token: %s is empty", r.tokenFile)
		}
	}
	switch {
	case r.config != "":
		cfg, _, err := config.Load(ctx, r.config)
		if err != nil {
			return nil, err
		}
		admin = cmp.Or(r.admin, adminURL(cfg))
		if r.tokenFile == "" {
			token = cfg.Admin.Token.Reveal()
		}
	case admin == "" && token == "":
		// A token from elsewhere never goes to an address that a file in the current folder names.
		var err error
		if admin, token, err = fromDefaultConfig(ctx); err != nil {
			return nil, err
		}
	}
	return newClient(cmp.Or(admin, defaultAdmin), token)
}

// fromDefaultConfig is where the admin port of the configuration in the current folder is.
func fromDefaultConfig(ctx context.Context) (admin, token string, err error) {
	const unset = "SLUICE_ADMIN_TOKEN is not set; it is the admin.token of the running sluice"
	if _, err := os.Stat(defaultConfig); err != nil {
		return "", "", errors.New(unset)
	}
	cfg, _, err := config.Load(ctx, defaultConfig)
	if err != nil {
		return "", "", fmt.Errorf("%s, and %s does not tell it: %w", unset, defaultConfig, err)
	}
	return adminURL(cfg), cfg.Admin.Token.Reveal(), nil
}

// adminURL is the admin port's, seen from its own machine.
func adminURL(cfg *config.Config) string {
	host, port, err := net.SplitHostPort(cfg.Admin.Listen)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http://"
	if cfg.Admin.TLS != nil {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port)
}
