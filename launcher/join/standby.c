#include "standby.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BACKLOG = 128, SECONDS_MAX = 24 * 3600 };

/* Only processes of the same user get anything, whoever can reach the socket. */
static void serve(int client) {
  char byte = 0, control[CMSG_SPACE(READY_FDS * sizeof(int))] = {0};
  const int fds[READY_FDS] = {STANDBY_USER, STANDBY_MNT, STANDBY_USER2, STANDBY_RESULT,
                              STANDBY_OFFER};
  struct iovec iov = {.iov_base = &byte, .iov_len = 1};
  struct msghdr msg = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
  struct ucred peer;
  socklen_t len = sizeof(peer);
  if (getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != geteuid())
    return;
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(fds));
  memcpy(CMSG_DATA(c), fds, sizeof(fds));
  (void)sendmsg(client, &msg, MSG_NOSIGNAL | MSG_DONTWAIT); /* it may be gone */
}

static bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

static void wait_for_clients(int milliseconds) {
  struct pollfd watched[] = {
      {.fd = STANDBY_SOCKET, .events = POLLIN},
      {.fd = STANDBY_SESSION, .events = POLLIN},
      {.fd = STANDBY_MOUNTS, .events = POLLPRI},
      {.fd = is_open(STANDBY_SERVER) ? STANDBY_SERVER : -1}, /* hang-ups are always told */
  };
  for (;;) {
    int n = poll(watched, sizeof(watched) / sizeof(watched[0]), milliseconds);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0 || watched[1].revents != 0 || watched[2].revents != 0 || watched[3].revents != 0)
      return;
    int client = accept4(STANDBY_SOCKET, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
      continue;
    serve(client);
    close(client);
  }
}

/* The name may be another holder's by now. */
static void remove_name(const char *name, ino_t mine) {
  struct stat st;
  if (fstatat(STANDBY_FOLDER, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == mine)
    unlinkat(STANDBY_FOLDER, name, 0);
}

static void hold(const char *name, int milliseconds, int told) {
  struct stat st;
  if (fstatat(STANDBY_FOLDER, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
      listen(STANDBY_SOCKET, BACKLOG) < 0)
    _exit(1);
  (void)!write(told, "", 1);
  close(told);
  wait_for_clients(milliseconds);
  remove_name(name, st.st_ino);
  _exit(0);
}

int standby_main(const char *name, const char *seconds) {
  int told[2], milliseconds = atoi(seconds);
  char byte;
  if (milliseconds < 1 || milliseconds > SECONDS_MAX || strchr(name, '/') != NULL)
    return 1;
  milliseconds *= 1000;
  /* Not what the user's shell had open: a lock or a pipe must not outlive the command. */
  if (syscall(SYS_close_range, is_open(STANDBY_SERVER) ? STANDBY_END : STANDBY_SERVER, ~0U, 0) <
          0 ||
      chdir("/") < 0 || pipe2(told, O_CLOEXEC) < 0)
    return 1;
  prctl(PR_SET_NAME, "berth-standby");
  signal(SIGHUP, SIG_DFL);
  pid_t child = fork();
  if (child == 0) {
    close(told[0]);
    hold(name, milliseconds, told[1]);
  }
  close(told[1]);
  return child < 0 || read(told[0], &byte, 1) != 1;
}
