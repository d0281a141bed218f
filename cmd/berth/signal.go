package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/berth-hpc/berth/launcher/signals"
)

// interrupted is the signal that ended a command.
type interrupted struct{ syscall.Signal }

// Error names the signal.
func (i interrupted) Error() string { return fmt.Sprintf("stopped by a signal: %s", i.Signal) }

// untilSignal returns a context that the first SIGINT, SIGTERM or SIGHUP
// cancels with its signal as the cause, so that the command can clean up. A
// second one ends the process at once.
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	caught := make(chan os.Signal, 1)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if signals.Ignored(sig) { // as nohup asks for
			signal.Ignore(sig)
		} else {
			signal.Notify(caught, sig)
		}
	}
	go func() {
		select {
		case sig := <-caught:
			signal.Stop(caught)
			cancel(interrupted{sig.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(caught)
		cancel(nil)
	}
}
