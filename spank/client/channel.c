#include "channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "wire.h"

enum { BACKLOG = 128, PACKET = 256 };

union control {
  struct cmsghdr header;
  char buf[CMSG_SPACE(sizeof(int) * CHANNEL_FDS)];
};

/* An abstract name has no file, so nothing has to be cleaned up or made visible. */
static socklen_t address(struct sockaddr_un *a, const char *name) {
  memset(a, 0, sizeof(*a));
  a->sun_family = AF_UNIX;
  int n = snprintf(a->sun_path + 1, sizeof(a->sun_path) - 1, "%s", name);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int new_socket(void) {
  return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

bool channel_from_self(int socket) {
  struct ucred peer;
  socklen_t len = sizeof(peer);
  return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == getuid();
}

int channel_connect(const char *name) {
  struct sockaddr_un a;
  int s = new_socket();
  if (s < 0)
    return -1;
  if (strlen(name) < sizeof(a.sun_path) - 1 &&
      connect(s, (struct sockaddr *)&a, address(&a, name)) == 0 && channel_from_self(s))
    return s;
  close(s);
  return -1;
}

int channel_listen(char *name, size_t size) {
  struct sockaddr_un a;
  unsigned long long id[2];
  if (getrandom(id, sizeof(id), 0) != sizeof(id))
    return -1;
  snprintf(name, size, "berth-slurm-%016llx%016llx", id[0], id[1]);
  int s = new_socket();
  if (s < 0)
    return -1;
  if (bind(s, (struct sockaddr *)&a, address(&a, name)) == 0 && listen(s, BACKLOG) == 0)
    return s;
  close(s);
  return -1;
}

static ssize_t send_packet(int socket, struct msghdr *msg, int flags) {
  ssize_t n;
  do
    n = sendmsg(socket, msg, MSG_NOSIGNAL | flags);
  while (n < 0 && errno == EINTR);
  return n;
}

bool channel_send_call(int socket, const int fds[CHANNEL_FDS]) {
  char text[] = "call=1";
  union control control;
  struct iovec data = {.iov_base = text, .iov_len = sizeof(text)};
  struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};
  memset(&control, 0, sizeof(control));
  msg.msg_control = control.buf;
  msg.msg_controllen = sizeof(control.buf);
  struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int) * CHANNEL_FDS);
  memcpy(CMSG_DATA(c), fds, sizeof(int) * CHANNEL_FDS);
  return send_packet(socket, &msg, 0) > 0;
}

/* Takes at most CHANNEL_FDS descriptors; the kernel drops what has no room. */
static int take_fds(struct msghdr *msg, int fds[CHANNEL_FDS]) {
  int count = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n && count < CHANNEL_FDS; i++)
      memcpy(&fds[count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
  }
  return count;
}

bool channel_receive_call(int socket, int fds[CHANNEL_FDS]) {
  char packet[PACKET];
  union control control;
  struct iovec data = {.iov_base = packet, .iov_len = sizeof(packet)};
  struct msghdr msg = {.msg_iov = &data,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof(control.buf)};
  ssize_t n;
  do
    n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  int count = n < 0 ? 0 : take_fds(&msg, fds); /* they come with an empty packet, too */
  const char *call = NULL;
  if (n > 0 && wire_valid(packet, (size_t)n))
    call = wire_get(packet, (size_t)n, "call");
  if (count == CHANNEL_FDS && call != NULL && strcmp(call, "1") == 0)
    return true;
  while (count > 0)
    close(fds[--count]);
  return false;
}

bool channel_send(int socket, const char *key, unsigned number) {
  char packet[PACKET];
  struct wire_writer w;
  wire_start(&w, packet, sizeof(packet));
  wire_add_number(&w, key, number);
  struct iovec data = {.iov_base = packet, .iov_len = w.len};
  struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};
  return !w.failed && send_packet(socket, &msg, MSG_DONTWAIT) > 0;
}

bool channel_receive(int socket, const char *key, unsigned *number) {
  char packet[PACKET];
  ssize_t n;
  do
    n = recv(socket, packet, sizeof(packet), 0);
  while (n < 0 && errno == EINTR);
  if (n <= 0 || !wire_valid(packet, (size_t)n))
    return false;
  const char *value = wire_get(packet, (size_t)n, key);
  if (value == NULL)
    return false;
  *number = (unsigned)strtoul(value, NULL, 10);
  return true;
}
