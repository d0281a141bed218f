#include "signals.h"

#include <signal.h>

static sigset_t ignored, blocked;

/* sigaction refuses what cannot be ignored. */
__attribute__((constructor)) static void before_go(void) {
  struct sigaction action;
  sigemptyset(&ignored);
  for (int sig = 1; sig <= SIGRTMAX; sig++)
    if (sigaction(sig, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
      sigaddset(&ignored, sig);
  sigprocmask(SIG_SETMASK, NULL, &blocked);
}

bool signals_ignored(int sig) {
  return sigismember(&ignored, sig) == 1;
}

void signals_restore(void) {
  struct sigaction ignore = {.sa_handler = SIG_IGN};
  for (int sig = 1; sig <= SIGRTMAX; sig++)
    if (signals_ignored(sig))
      sigaction(sig, &ignore, NULL);
  pthread_sigmask(SIG_SETMASK, &blocked, NULL);
}
