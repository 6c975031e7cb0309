package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (p *Program) page() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "page",
		Short: "print a link that opens the admin page, once, within a minute",
		Long: "Print a link that signs one browser in to the admin page of a running sluice,\n" +
			"once, within a minute. The admin token is not in it.",
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			admin, err := r.client(cmd.Context())
			if err != nil {
				return err
			}
			link, err := signInLink(cmd.Context(), admin)
			switch {
			case err != nil:
				return err
			case r.asJSON:
				return printJSON(cmd, map[string]string{"link": link})
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), link)
			return err
		},
	}
	r.bind(cmd)
	return cmd
}

// signInLink makes a link with a new one-time code. The code is in the fragment, which a browser sends
// to no server.
func signInLink(ctx context.Context, admin *client) (string, error) {
	type made struct {
		Code string `json:"code"`
	}
	got, err := into[made](ctx, admin, "POST", "/api/sign-in/codes", nil)
	return admin.base + "/#sign-in=" + got.Code, err
}
