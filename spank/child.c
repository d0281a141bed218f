#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum { FD_COUNT = 4, FD_ABOVE = 16, FD_LAST_RESORT = 4096, POLL_MS = 5 };

char *const child_root_env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", NULL};

static void reset_signals(void) {
  sigset_t none;
  for (int sig = 1; sig < NSIG; sig++)
    signal(sig, SIG_DFL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * Raw calls, because the C library's setresuid signals all threads of the
 * process, and this is a fork of a process that had some. The user id goes
 * first: in user_init the effective one is the user's.
 */
static int become_root(void) {
  if (syscall(SYS_setresuid, -1, 0, -1) < 0)
    return -1;
  if (syscall(SYS_setgroups, 0, NULL) < 0)
    return -1;
  if (syscall(SYS_setresgid, 0, 0, 0) < 0)
    return -1;
  return (int)syscall(SYS_setresuid, 0, 0, 0);
}

/* slurmstepd is exempt from the out-of-memory killer; what it starts is not. */
static void reset_oom_score(void) {
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0)
    return;
  if (write(fd, "0", 1) < 0)
    errno = 0; /* a worse score than wished for is no reason to stop */
  close(fd);
}

static void close_from(int first) {
  if (syscall(SYS_close_range, first, ~0U, 0) == 0)
    return;
  for (int fd = first; fd < FD_LAST_RESORT; fd++)
    close(fd);
}

/* Moves the descriptors to 0..3 and status behind them; the rest is closed. */
static int place_descriptors(const struct child *c, int *status) {
  int high[FD_COUNT];
  *status = fcntl(*status, F_DUPFD_CLOEXEC, FD_ABOVE);
  for (int i = 0; i < FD_COUNT; i++) {
    int null = c->fds[i] < 0 ? open("/dev/null", O_RDWR) : -1;
    high[i] = fcntl(null < 0 ? c->fds[i] : null, F_DUPFD_CLOEXEC, FD_ABOVE);
    if (high[i] < 0)
      return -1;
  }
  for (int i = 0; i < FD_COUNT; i++)
    if (dup2(high[i], i) < 0)
      return -1;
  if (c->fds[3] < 0)
    close(3);
  if (dup3(*status, FD_COUNT, O_CLOEXEC) < 0)
    return -1;
  *status = FD_COUNT;
  close_from(FD_COUNT + 1);
  return 0;
}

/* The parent may have ended before the kernel was asked to tell. */
static int tie_to(pid_t parent, int signal) {
  if (prctl(PR_SET_PDEATHSIG, signal) < 0)
    return -1;
  errno = ECHILD;
  return getppid() == parent ? 0 : -1;
}

static int prepare(const struct child *c, pid_t parent, int *status) {
  reset_signals();
  if (c->ends_with_us != 0 && tie_to(parent, c->ends_with_us) < 0)
    return -1;
  if (place_descriptors(c, status) < 0)
    return -1;
  if (c->as_root && become_root() < 0)
    return -1;
  if (c->as_root)
    reset_oom_score();
  if (c->own_session)
    setsid();
  if (c->own_session && !c->in_place) {
    umask(022);
    if (chdir("/") < 0)
      return -1;
  }
  return 0;
}

__attribute__((noreturn)) static void run(const struct child *c, pid_t parent, int status) {
  pid_t pid = c->orphan ? fork() : 0;
  if (pid > 0)
    _exit(0);
  if (pid == 0 && prepare(c, parent, &status) == 0)
    execve(c->path, c->argv, c->env);
  int why = errno;
  ssize_t n = write(status, &why, sizeof(why));
  _exit(n == sizeof(why) ? 127 : 126);
}

/* The pipe closes without a word when exec succeeds. */
static int exec_error(int status) {
  int why = 0;
  ssize_t n;
  do
    n = read(status, &why, sizeof(why));
  while (n < 0 && errno == EINTR);
  return n == sizeof(why) ? why : 0;
}

pid_t child_start(const struct child *c) {
  int status[2];
  if (pipe2(status, O_CLOEXEC) < 0)
    return -1;
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid == 0)
    run(c, parent, status[1]);
  close(status[1]);
  if (pid < 0) {
    close(status[0]);
    return -1;
  }
  int why = exec_error(status[0]);
  close(status[0]);
  if (c->orphan || why != 0)
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
      continue;
  if (why != 0) {
    errno = why;
    return -1;
  }
  return c->orphan ? 0 : pid;
}

long long child_clock_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static bool collected(pid_t pid, int *status) {
  pid_t got = waitpid(pid, status, WNOHANG);
  if (got < 0 && errno == ECHILD)
    *status = -1;
  return got == pid || (got < 0 && errno == ECHILD);
}

bool child_wait(pid_t pid, int timeout_ms, int *status) {
  long long deadline = child_clock_ms() + timeout_ms;
  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0); /* from 5.3; else look every 5 ms */
  bool done;
  while (!(done = collected(pid, status))) {
    long long left = deadline - child_clock_ms();
    if (left <= 0)
      break;
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    poll(&p, 1, pidfd < 0 && left > POLL_MS ? POLL_MS : (int)left);
  }
  if (pidfd >= 0)
    close(pidfd);
  return done;
}

bool child_end(pid_t pid, bool own_session, int timeout_ms, int *status) {
  if (child_wait(pid, timeout_ms, status))
    return true;
  kill(own_session ? -pid : pid, SIGKILL);
  while (waitpid(pid, status, 0) < 0 && errno == EINTR)
    continue;
  return false;
}

/* Reads what is there; what does not fit is dropped. False at the end. */
static bool drain(struct child_output *o) {
  char rest[512];
  bool full = o->len + 1 >= o->cap;
  ssize_t n =
      full ? read(o->fd, rest, sizeof(rest)) : read(o->fd, o->buf + o->len, o->cap - 1 - o->len);
  if (n < 0)
    return errno == EINTR;
  o->over |= full && n > 0;
  if (!full)
    o->len += (size_t)n;
  o->buf[o->len] = '\0';
  return n > 0;
}

void child_collect(struct child_output *out, int count, long long deadline) {
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
