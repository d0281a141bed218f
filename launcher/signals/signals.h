/*
 * signals: what the caller of this program does about signals. Go's runtime
 * forgets most of it: only an ignored SIGHUP or SIGINT stays ignored, and some
 * signals are never blocked. A constructor, which runs before Go begins, keeps
 * both for the program that this process becomes.
 */
#ifndef BERTH_SIGNALS_H
#define BERTH_SIGNALS_H

#include <stdbool.h>

/* signals_ignored says whether a signal was ignored at first. */
bool signals_ignored(int sig);

/*
 * signals_restore ignores again what was ignored at first, and gives the
 * calling thread the mask of then. Signals 32 and 33 are left out: they are the
 * C library's own.
 */
void signals_restore(void);

#endif
