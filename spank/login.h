/*
 * login: asks `berth credential` which login to a registry the job's user has,
 * in the task's own session: with its environment, its home folder, its tickets
 * and the user's helper programs. The answer is a secret on its way to root's
 * helper. It is in no argument, variable or file.
 */
#ifndef BERTH_LOGIN_H
#define BERTH_LOGIN_H

#include <stdbool.h>

/* An answer that is longer is none, in bytes; it has to fit into a message. */
enum { LOGIN_MAX = 32 * 1024 };

struct login {
  char answer[LOGIN_MAX]; /* as `berth credential` wrote it; login_forget it */
  char why[256];          /* or why there is none */
};

/* How long a task looks: a helper program has login.helper_timeout, the rest is
 * for homes that hang. */
enum { LOGIN_LIMIT_MS = 20000 };

/*
 * login_find runs in a task, as the user, and returns at most 2 s after
 * limit_ms; a signal that ends the task ends what it has started, too. berth:
 * the program's path.
 */
bool login_find(const char *berth, const char *reference, char *const *env, int limit_ms,
                struct login *l);

/* login_forget takes the secret out of memory. */
void login_forget(struct login *l);

#endif
