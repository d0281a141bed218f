#include "pid.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the command inherits: the mask and SIGCHLD's action as they came. */
struct inherited {
  sigset_t mask;
  struct sigaction child;
};

/* All but those by which the terminal stops caller and command together. */
static void handed_on(sigset_t *set) {
  sigfillset(set);
  sigdelset(set, SIGTSTP);
  sigdelset(set, SIGTTIN);
  sigdelset(set, SIGTTOU);
}

static void block(struct inherited *was) {
  struct sigaction standard = {.sa_handler = SIG_DFL};
  sigset_t set;
  handed_on(&set);
  sigprocmask(SIG_SETMASK, &set, &was->mask);
  sigaction(SIGCHLD, &standard, &was->child); /* ignored, nobody could be waited for */
}

static void unblock(const struct inherited *was) {
  sigaction(SIGCHLD, &was->child, NULL);
  sigprocmask(SIG_SETMASK, &was->mask, NULL);
}

/* Waits for whoever has ended. Returns true with the status once child has. */
static bool reap(pid_t child, int *status) {
  pid_t pid;
  int s;
  while ((pid = waitpid(-1, &s, WNOHANG)) > 0)
    if (pid == child) {
      *status = s;
      return true;
    }
  return false;
}

/*
 * Hands on what somebody sent to this process; what the kernel sends, as the
 * terminal's driver does, reaches the command, too. Returns the child's status.
 */
static int relay(pid_t child) {
  sigset_t set;
  siginfo_t info;
  int status = 0;
  handed_on(&set);
  while (!reap(child, &status))
    if (sigwaitinfo(&set, &info) > 0 && info.si_signo != SIGCHLD && info.si_code <= 0)
      kill(child, info.si_signo);
  return status;
}

/* Whoever waits for the end of a pipe or file must not wait for us. */
static void let_go(int keep) {
  int null = open("/dev/null", O_RDWR);
  long limit = sysconf(_SC_OPEN_MAX);
  for (int fd = 0; null >= 0 && fd < 3; fd++)
    dup2(null, fd);
  if (syscall(SYS_close_range, 3, keep < 0 ? ~0U : (unsigned)keep - 1, 0) == 0 || errno != ENOSYS) {
    if (keep >= 0)
      syscall(SYS_close_range, keep + 1, ~0U, 0);
    return;
  }
  for (int fd = 3; fd < limit; fd++) /* before Linux 5.9 */
    if (fd != keep)
      close(fd);
}

__attribute__((noreturn)) static void end_as(int status) {
  struct rlimit none = {0, 0};
  sigset_t one;
  if (WIFEXITED(status))
    _exit(WEXITSTATUS(status));
  setrlimit(RLIMIT_CORE, &none); /* the command has left one */
  signal(WTERMSIG(status), SIG_DFL);
  sigemptyset(&one);
  sigaddset(&one, WTERMSIG(status));
  kill(getpid(), WTERMSIG(status));
  sigprocmask(SIG_UNBLOCK, &one, NULL);
  _exit(128 + WTERMSIG(status));
}

static int fail(struct join_error *err, const char *what) {
  snprintf(err->text, sizeof(err->text), "cannot %s: %s", what, strerror(errno));
  err->remedy = NULL;
  return -1;
}

static void mount_proc(void) {
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
    fprintf(stderr,
            "berth: warning: /proc shows the processes of the machine: a new one cannot be mounted "
            "here (%s)\n",
            strerror(errno));
}

/* The status goes by a pipe: number 1 cannot end by a signal of its own. */
__attribute__((noreturn)) static void be_init(pid_t command, int told,
                                              const struct join_namespaces *ns) {
  struct join_error err;
  join_become(ns, "/", &err); /* it needs no rights over the container */
  let_go(told);
  setpgid(0, 0); /* signals for the command's group are not for it */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int status = relay(command);
  _exit(write(told, &status, sizeof(status)) < 0);
}

/* Number 1. Returns in the command. */
static int begin(int told, const struct join_namespaces *ns, struct join_error *err) {
  mount_proc();
  pid_t command = fork();
  if (command < 0)
    return fail(err, "start the command");
  if (command > 0)
    be_init(command, told, ns);
  close(told);
  return 0;
}

/* A shell that ended leaves the terminal to a group that is no more. */
static void take_terminal(void) {
  int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTTOU);
  sigprocmask(SIG_BLOCK, &set, NULL);
  if (tty >= 0 && kill(-tcgetpgrp(tty), 0) < 0 && errno == ESRCH)
    tcsetpgrp(tty, getpgrp());
}

__attribute__((noreturn)) static void wait_outside(pid_t child, int told,
                                                   const struct join_namespaces *ns) {
  struct join_error err;
  int status, said;
  join_become(ns, "/", &err);
  let_go(told);
  status = relay(child);
  if (told >= 0 && read(told, &said, sizeof(said)) == (ssize_t)sizeof(said))
    status = said;
  take_terminal();
  end_as(status);
}

/* Above the standard descriptors, which the caller may have closed. */
static int make_pipe(int told[2]) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0)
    return -1;
  for (int i = 0; i < 2; i++) {
    told[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
    close(fds[i]);
  }
  return told[0] < 0 || told[1] < 0 ? -1 : 0;
}

int pid_enter(int pid, const struct join_namespaces *ns, struct join_error *err) {
  struct inherited was;
  int told[2] = {-1, -1};
  if (pid == PID_SAME)
    return 0;
  if ((pid == PID_NEW ? unshare(CLONE_NEWPID) : setns(pid, CLONE_NEWPID)) < 0)
    return fail(err, "enter the container's pid namespace");
  if (pid == PID_NEW && make_pipe(told) < 0)
    return fail(err, "make a pipe");
  block(&was);
  pid_t child = fork();
  if (child < 0)
    return fail(err, "start a process in the container's pid namespace");
  if (child > 0) {
    close(told[1]);
    wait_outside(child, told[0], ns);
  }
  close(told[0]);
  if (pid == PID_NEW && begin(told[1], ns, err) < 0)
    return -1;
  unblock(&was);
  return 0;
}
