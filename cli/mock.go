package cli

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/mock"
)

func mockCommand() *cobra.Command {
	p := &mock.Provider{}
	var listen string
	cmd := &cobra.Command{
		Use:   "mock",
		Short: "serve a provider of OpenAI's and Anthropic's APIs, to try out",
		Long: `Serve a provider that answers every request with the same text, to try
things out. A path may begin with anything. The last part says which API it is:
  ` + strings.Join(mock.Paths(), "\n  ") + `
Answers are plain or, with "stream":true, events as that API sends them. Usage
counts a token for each word of the answer and each four bytes of the question.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.Chunks < 1 || p.FailureRate < 0 || p.FailureRate > 1 {
				return misuse(cmd, "needs --chunks of at least 1, and --failure-rate from 0 to 1")
			}
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("cannot listen (--listen): %w", err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "mock provider listens on %s\n", ln.Addr())
			return p.Serve(cmd.Context(), ln)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&listen, "listen", "127.0.0.1:8081", "`ADDRESS` to serve")
	flags.DurationVar(&p.Delay, "delay", 0, "`TIME` before the first byte of an answer")
	flags.IntVar(&p.Chunks, "chunks", 20, "`N` words in an answer; a stream has an event for each")
	flags.DurationVar(&p.ChunkDelay, "chunk-delay", 50*time.Millisecond, "`TIME` before each of these events")
	flags.Float64Var(&p.FailureRate, "failure-rate", 0, "`PART` of the requests answered with 500, from 0 to 1")
	return cmd
}
