#include "outside.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "channel.h"
#include "command.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* GRACE_S: from SIGTERM to SIGKILL for a command whose caller is gone. */
enum { RUNNING_MAX = 256, GRACE_S = 5, FIRST = 2 };

struct running {
  int socket; /* -1: the caller is gone */
  int pidfd;
  pid_t pid;        /* 0: has not called yet */
  time_t kill_time; /* 0: not being ended */
};

struct server {
  struct running running[RUNNING_MAX];
  int count;
};

static time_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec;
}

static void forget(struct server *s, int i) {
  struct running *r = &s->running[i];
  if (r->socket >= 0)
    close(r->socket);
  if (r->pidfd >= 0)
    close(r->pidfd);
  *r = s->running[--s->count];
}

static void take_caller(struct server *s, int listening) {
  int socket = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
  if (socket < 0)
    return;
  if (!channel_from_self(socket)) {
    close(socket);
    return;
  }
  s->running[s->count++] = (struct running){.socket = socket, .pidfd = -1};
}

static bool start(struct running *r) {
  int fds[CHANNEL_FDS];
  if (!channel_receive_call(r->socket, fds))
    return false;
  r->pid = command_start(fds);
  for (int i = 0; i < CHANNEL_FDS; i++)
    close(fds[i]);
  if (r->pid < 0)
    return false;
  r->pidfd = (int)syscall(SYS_pidfd_open, r->pid, 0);
  return r->pidfd >= 0;
}

/* Not at once: the command may have something to tell Slurm first. */
static void begin_end(struct running *r) {
  if (r->socket >= 0)
    close(r->socket);
  r->socket = -1;
  if (r->kill_time != 0)
    return;
  kill(r->pid, SIGTERM);
  r->kill_time = now() + GRACE_S;
}

/* Returns false when nothing is left to be done for this caller. */
static bool hear(struct running *r) {
  unsigned signal;
  if (r->pid == 0)
    return start(r);
  if (!channel_receive(r->socket, "signal", &signal))
    begin_end(r);
  else if (signal > 0 && signal < NSIG)
    kill(r->pid, (int)signal);
  return true;
}

static void finish(struct running *r) {
  int status = 0;
  while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
    continue;
  if (r->socket >= 0)
    channel_send(r->socket, "status", (unsigned)status);
}

/* The descriptors of all that can happen; two for each caller after the first two. */
static int collect(const struct server *s, struct pollfd *fds) {
  int n = FIRST;
  for (int i = 0; i < s->count; i++) {
    fds[n++] = (struct pollfd){.fd = s->running[i].pidfd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = s->running[i].socket, .events = POLLIN};
  }
  return n;
}

/* From the last to the first, because forget moves the last one down. */
static void look(struct server *s, const struct pollfd *fds) {
  for (int i = s->count - 1; i >= 0; i--) {
    struct running *r = &s->running[i];
    if (fds[FIRST + 2 * i].revents != 0) {
      finish(r);
      forget(s, i);
    } else if (fds[FIRST + 2 * i + 1].revents != 0 && !hear(r)) {
      forget(s, i);
    } else if (r->kill_time != 0 && now() >= r->kill_time) {
      kill(r->pid, SIGKILL);
    }
  }
}

static void end_all(struct server *s) {
  for (int i = s->count - 1; i >= 0; i--)
    if (s->running[i].pid > 0)
      begin_end(&s->running[i]);
    else
      forget(s, i);
}

static bool ending(const struct server *s) {
  for (int i = 0; i < s->count; i++)
    if (s->running[i].kill_time != 0)
      return true;
  return false;
}

void outside_serve(int listening, int task) {
  static struct server s;
  static struct pollfd fds[FIRST + 2 * RUNNING_MAX];
  bool over = false;
  while (!over || s.count > 0) {
    bool full = s.count == RUNNING_MAX; /* more callers wait in the backlog */
    fds[0] = (struct pollfd){.fd = over || full ? -1 : listening, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = over ? -1 : task, .events = POLLIN};
    int n = collect(&s, fds);
    if (poll(fds, (nfds_t)n, ending(&s) ? 1000 : -1) < 0)
      continue;
    look(&s, fds);
    if (fds[0].revents != 0)
      take_caller(&s, listening);
    if (fds[1].revents != 0) {
      over = true;
      close(listening);
      end_all(&s);
    }
  }
}
