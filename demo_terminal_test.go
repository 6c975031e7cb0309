package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// TestEndWithTerminal: SIGHUP ends the demo, unless nohup has it ignored.
func TestEndWithTerminal(t *testing.T) {
	ctx, stop := endWithTerminal(context.Background())
	defer stop()
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("the tests themselves run under nohup")
	}
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGHUP)
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Error("the terminal has gone, and nothing ends")
	}
	signal.Ignore(syscall.SIGHUP)
	// Reset would leave it ignored, in the processes of other tests too.
	defer signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	_, stop = endWithTerminal(context.Background())
	stop()
	if !signal.Ignored(syscall.SIGHUP) {
		t.Error("what nohup has ignored is no longer")
	}
}
