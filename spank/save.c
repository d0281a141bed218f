#include "save.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "failure.h"
#include "packet.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define REMEDY_ADMIN "this is for the cluster's admin: slurmd's log on this node says more"

enum { CHANNEL = 3, ABOVE = 16, LAST_RESORT = 4096 };

/*
 * The lower half of the counter has the tasks that joined, the upper one those
 * that have ended. Nobody blocks on it, and writing to it raises no signal
 * whoever is gone.
 */
#define ENDED ((uint64_t)1 << 32)

static int counter = -1;

void save_count(void) {
  counter = eventfd(0, EFD_CLOEXEC);
  if (counter < 0)
    failure_keep(REMEDY_ADMIN, "cannot make an eventfd: %s", strerror(errno));
}

static void count(uint64_t n) {
  ssize_t done;
  do
    done = write(counter, &n, sizeof(n));
  while (done < 0 && errno == EINTR);
}

void save_joined(void) {
  count(1);
}

void save_ended(void) {
  count(ENDED);
}

/* The records about saving, and our own, in the order of the descriptors. */
static void write_message(const struct save *s, pid_t task, struct wire_writer *w) {
  struct wire_reader reader;
  struct wire_record rec;
  wire_add(w, "target", s->target);
  wire_add_number(w, "task", (unsigned long long)task);
  wire_add_number(w, "tasks", (unsigned long long)s->tasks);
  if (s->batch)
    wire_add(w, "batch", "1");
  wire_read(&reader, s->said.data, s->said.len);
  while (wire_next(&reader, &rec)) {
    if (wire_key_is(&rec, "saved"))
      wire_add(w, "saved", rec.value);
    if (wire_key_is(&rec, "save_image"))
      wire_add(w, "image", rec.value);
    if (wire_key_is(&rec, "save_digest"))
      wire_add(w, "digest", rec.value);
  }
}

static int send_message(const struct save *s, int socket, const struct wire_writer *w) {
  int fds[SAVE_FDS_MAX + 2] = {s->mount, counter};
  memcpy(fds + 2, s->fds, sizeof(int) * (size_t)s->fd_count);
  return packet_send(socket, w, fds, s->fd_count + 2);
}

/*
 * Signals of the step are the task's business: berth looks at those that it
 * cares for once it runs. Go keeps what its caller ignores for three of them
 * (launcher/signals), and what its caller blocks for all.
 */
static void leave_signals_to_the_task(void) {
  static const int ignored[] = {SIGHUP, SIGINT, SIGTERM};
  static const int blocked[] = {SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1,
                                SIGUSR2, SIGALRM, SIGXCPU, SIGPIPE};
  sigset_t set;
  for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
    signal(ignored[i], SIG_IGN);
  sigemptyset(&set);
  for (size_t i = 0; i < sizeof(blocked) / sizeof(*blocked); i++)
    sigaddset(&set, blocked[i]);
  sigprocmask(SIG_BLOCK, &set, NULL);
}

/* What the task has open (PMI_FD) must end with it. */
static int keep_only(int channel) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  int high = fcntl(channel, F_DUPFD_CLOEXEC, ABOVE);
  if (null < 0 || high < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
      dup2(high, CHANNEL) < 0)
    return -1;
  if (syscall(SYS_close_range, CHANNEL + 1, ~0U, 0) != 0)
    for (int fd = CHANNEL + 1; fd < LAST_RESORT; fd++)
      close(fd);
  return 0;
}

/* The message waits in the channel; pair[1] is the task's end, too. */
__attribute__((noreturn)) static void become_saver(const struct save *s, pid_t task, int pair[2]) {
  static char buf[WIRE_MAX];
  char *argv[] = {"berth", "save-step", NULL};
  struct wire_writer w;
  wire_start(&w, buf, sizeof(buf));
  write_message(s, task, &w);
  int rc = w.failed ? -1 : send_message(s, pair[1], &w);
  close(pair[1]);
  if (rc == 0) {
    leave_signals_to_the_task();
    rc = keep_only(pair[0]);
  }
  if (rc == 0)
    execve(s->berth, argv, s->env);
  failure_keep(REMEDY_ADMIN, "cannot start %s to save the container: %s", s->berth,
               strerror(errno));
  failure_end(); /* the task meets the end of its channel */
}

/* berth has read what it got, and thinks that the container can be saved. */
static void await_word(int channel) {
  char word;
  ssize_t n;
  do
    n = recv(channel, &word, 1, 0);
  while (n < 0 && errno == EINTR);
  close(channel);
  if (n != 1)
    _exit(1);
}

bool save_split(const struct save *s) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
    failure_keep(REMEDY_ADMIN, "cannot make a socket: %s", strerror(errno));
    return false;
  }
  pid_t task = fork();
  if (task < 0) {
    failure_keep(REMEDY_ADMIN, "cannot start a process to save the container: %s", strerror(errno));
    close(pair[0]);
    close(pair[1]);
    return false;
  }
  if (task == 0) {
    close(pair[0]);
    await_word(pair[1]);
    return true;
  }
  become_saver(s, task, pair);
}
