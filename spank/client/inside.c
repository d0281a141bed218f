#include "inside.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "call.h"
#include "channel.h"

enum { EXIT_NO_HELPER = 1, EXIT_CANNOT = 126 };

static const int passed_on[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

static int complain(const char *command, const char *why, const char *remedy) {
  fprintf(stderr, "berth: error: %s: %s\n", command, why);
  if (remedy != NULL)
    fprintf(stderr, "berth:   %s\n", remedy);
  return EXIT_NO_HELPER;
}

/* From here on the signals come through a descriptor. */
static int watch_signals(void) {
  sigset_t set;
  sigemptyset(&set);
  for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
    sigaddset(&set, passed_on[i]);
  if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
    return -1;
  return signalfd(-1, &set, SFD_CLOEXEC);
}

/* Ends as the command did: exit code, or the same signal without another core file. */
static int end_as(unsigned status) {
  struct rlimit none = {0, 0};
  sigset_t set;
  if (!WIFSIGNALED(status))
    return WEXITSTATUS(status);
  setrlimit(RLIMIT_CORE, &none);
  sigemptyset(&set);
  sigaddset(&set, WTERMSIG(status));
  signal(WTERMSIG(status), SIG_DFL);
  raise(WTERMSIG(status));
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  return 128 + (int)WTERMSIG(status);
}

static void pass_on(int signals, int socket) {
  struct signalfd_siginfo info;
  if (read(signals, &info, sizeof(info)) == sizeof(info))
    channel_send(socket, "signal", info.ssi_signo);
}

static int follow(const char *command, int socket, int signals) {
  struct pollfd fds[] = {{.fd = socket, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
  unsigned status;
  for (;;) {
    if (poll(fds, 2, -1) < 0 && errno != EINTR)
      return complain(command, strerror(errno), NULL);
    if (fds[1].revents & POLLIN)
      pass_on(signals, socket);
    if (fds[0].revents == 0)
      continue;
    if (channel_receive(socket, "status", &status))
      return end_as(status);
    return complain(command, "the helper outside of the container ended",
                    "it ends with the job step that it was started for");
  }
}

/* A closed standard descriptor of ours is /dev/null for the command. */
static void fill_standard_descriptors(void) {
  for (int fd = 0; fd <= 2; fd++)
    if (dup2(fd, fd) < 0 && freopen("/dev/null", fd == 0 ? "r" : "w",
                                    fd == 0 ? stdin : (fd == 1 ? stdout : stderr)) == NULL)
      continue;
}

int inside_run(const char *command, char *const *args, char *const *env) {
  const char *name = getenv(CALL_SOCKET);
  fill_standard_descriptors();
  if (name == NULL || name[0] == '\0')
    return complain(command, CALL_SOCKET " is not set, so the helper outside can't be found",
                    "keep the environment of the job step, or ask for --container-slurm");
  int signals = watch_signals();
  int socket = channel_connect(name);
  if (socket < 0)
    return complain(command, "the helper outside of the container does not answer",
                    "it ends with the job step that it was started for, and a container with a "
                    "network of its own (--container-unshare=net) can't reach it");
  int fds[CHANNEL_FDS] = {0, 1, 2, call_seal(command, args, env)};
  if (signals < 0 || fds[CHANNEL_CALL] < 0 || !channel_send_call(socket, fds)) {
    complain(command, strerror(errno), NULL);
    return EXIT_CANNOT;
  }
  close(fds[CHANNEL_CALL]);
  return follow(command, socket, signals);
}
