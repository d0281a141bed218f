#include "login.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "child.h"

enum { END_MS = 1000 };

/* It may end helper programs of its own on SIGTERM. One that the kernel does not
 * let go of (a dead file server) is left to Slurm. */
static void end(pid_t pid, bool late) {
  int status;
  if (!late && child_wait(pid, END_MS, &status))
    return;
  kill(pid, SIGTERM);
  if (child_wait(pid, END_MS, &status))
    return;
  kill(pid, SIGKILL);
  child_wait(pid, END_MS, &status);
}

/* Starts berth with the end of a pipe as descriptor 3; returns the other end. */
static int start(const char *berth, const char *reference, char *const *env, pid_t *pid) {
  char *argv[] = {(char *)berth, "credential", "--", (char *)reference, NULL};
  int pipes[2];
  if (pipe2(pipes, O_CLOEXEC) < 0)
    return -1;
  struct child c = {.path = berth,
                    .argv = argv,
                    .env = env,
                    .fds = {-1, -1, -1, pipes[1]},
                    .ends_with_us = SIGTERM};
  *pid = child_start(&c);
  int why = errno;
  close(pipes[1]);
  if (*pid > 0)
    return pipes[0];
  close(pipes[0]);
  errno = why;
  return -1;
}

bool login_find(const char *berth, const char *reference, char *const *env, int limit_ms,
                struct login *l) {
  pid_t pid;
  /* Nobody but root looks into this process, and no core is dumped of it; exec
   * of the command ends that, and frees the memory. */
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
    snprintf(l->why, sizeof(l->why), "cannot hide a login: %s", strerror(errno));
    return false;
  }
  int fd = start(berth, reference, env, &pid);
  if (fd < 0) {
    snprintf(l->why, sizeof(l->why), "cannot start %s: %s", berth, strerror(errno));
    return false;
  }
  struct child_output out = {.fd = fd, .buf = l->answer, .cap = sizeof(l->answer)};
  child_collect(&out, 1, child_clock_ms() + limit_ms);
  bool late = out.fd >= 0;
  end(pid, late);
  if (late)
    close(out.fd);
  if (late)
    snprintf(l->why, sizeof(l->why), "%s credential gave no answer within %d s", berth,
             limit_ms / 1000);
  else if (out.over)
    snprintf(l->why, sizeof(l->why), "%s credential gave an answer that is too long", berth);
  else if (out.len == 0)
    snprintf(l->why, sizeof(l->why), "%s credential ended without an answer", berth);
  else
    return true;
  return false;
}

void login_forget(struct login *l) {
  explicit_bzero(l->answer, sizeof(l->answer));
}
