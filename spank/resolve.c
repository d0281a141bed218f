#include "resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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

/* What is read from one end of a pipe. */
struct output {
  int fd;
  char *buf;
  size_t cap;
  size_t len;
};

/* Reads what is there; what does not fit is dropped. False at the end. */
static bool drain(struct output *o) {
  char rest[512];
  bool full = o->len + 1 >= o->cap;
  ssize_t n =
      full ? read(o->fd, rest, sizeof(rest)) : read(o->fd, o->buf + o->len, o->cap - 1 - o->len);
  if (n < 0)
    return errno == EINTR;
  if (!full)
    o->len += (size_t)n;
  o->buf[o->len] = '\0';
  return n > 0;
}

static void collect(struct output *out, int count, long long deadline) {
  for (;;) {
    struct pollfd fds[2];
    int open_count = 0;
    for (int i = 0; i < count; i++) {
      fds[i] = (struct pollfd){.fd = out[i].fd, .events = POLLIN};
      open_count += out[i].fd >= 0;
    }
    long long left = deadline - child_clock_ms();
    if (open_count == 0 || left <= 0)
      return;
    if (poll(fds, (nfds_t)count, (int)left) < 0 && errno != EINTR)
      return;
    for (int i = 0; i < count; i++)
      if (fds[i].fd >= 0 && fds[i].revents != 0 && !drain(&out[i])) {
        close(out[i].fd);
        out[i].fd = -1;
      }
  }
}

static void close_all(const int *fds, int count) {
  for (int i = 0; i < count; i++)
    if (fds[i] >= 0)
      close(fds[i]);
}

/* Runs berth and returns its wait status, or -1 with why filled. */
static int run(const char *berth, const char *reference, struct output *out, char *why) {
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
    collect(out, 2, child_clock_ms() + TIMEOUT_MS);
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
  struct output out[2] = {{.buf = text, .cap = sizeof(text)},
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
