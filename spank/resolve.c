#include "resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "child.h"

extern char **environ;

/* berth keeps to its own limit; ours is for a berth that hangs. */
enum { TIMEOUT_MS = 3500, END_MS = 200, EXIT_USER = 64 };
#define TIMEOUT_OPTION "3s"

static void close_all(const int *fds, int count) {
  for (int i = 0; i < count; i++)
    if (fds[i] >= 0)
      close(fds[i]);
}

/* Runs berth and returns its wait status, or -1 with why filled. */
static int run(const char *berth, const char *reference, struct child_output *out, char *why) {
  char *argv[] = {(char *)berth, "resolve",         "--timeout", TIMEOUT_OPTION,
                  "--",          (char *)reference, NULL};
  int pipes[4] = {-1, -1, -1, -1};
  int status = -1;
  if (pipe2(pipes, O_CLOEXEC) < 0 || pipe2(pipes + 2, O_CLOEXEC) < 0) {
    snprintf(why, 256, "cannot make a pipe: %s", strerror(errno));
    close_all(pipes, 4);
    return -1;
  }
  struct child c = {
      .path = berth, .argv = argv, .env = environ, .fds = {-1, pipes[1], pipes[3], -1}};
  pid_t pid = child_start(&c);
  int start_errno = errno;
  close(pipes[1]);
  close(pipes[3]);
  out[0].fd = pipes[0];
  out[1].fd = pipes[2];
  if (pid > 0) {
    child_collect(out, 2, child_clock_ms() + TIMEOUT_MS);
    if (!child_end(pid, false, END_MS, &status))
      snprintf(why, 256, "%s did not answer in time", berth);
  } else {
    snprintf(why, 256, "cannot start %s: %s", berth, strerror(start_errno));
  }
  close_all((int[]){out[0].fd, out[1].fd}, 2);
  return why[0] != '\0' ? -1 : status;
}

enum resolve_outcome resolve_reference(const char *berth, const char *reference,
                                       struct resolve_answer *answer) {
  char text[256] = "", problem[256] = "";
  answer->why[0] = '\0';
  struct child_output out[2] = {{.buf = text, .cap = sizeof(text)},
                                {.buf = answer->why, .cap = sizeof(answer->why)}};
  int status = run(berth, reference, out, problem);
  text[strcspn(text, "\n")] = '\0';
  /* srun may have collected the child (status -1): then the digest alone counts. */
  if (problem[0] == '\0' && check_digest(text) && (status == 0 || status == -1)) {
    snprintf(answer->digest, sizeof(answer->digest), "%s", text);
    return RESOLVE_PINNED;
  }
  if (problem[0] != '\0')
    snprintf(answer->why, sizeof(answer->why), "%s", problem);
  else if (answer->why[0] == '\0')
    snprintf(answer->why, sizeof(answer->why), "%s ended without a digest", berth);
  bool refused = status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_USER;
  return refused ? RESOLVE_REFUSED : RESOLVE_UNREACHABLE;
}
