#include "packet.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int packet_send(int socket, const struct wire_writer *w, const int *fds, int count) {
  union {
    struct cmsghdr header;
    char buf[CMSG_SPACE(sizeof(int) * PACKET_FDS_MAX)];
  } control;
  size_t size = sizeof(int) * (size_t)count;
  struct iovec data = {.iov_base = w->buf, .iov_len = w->len};
  struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};
  if (count < 1 || count > PACKET_FDS_MAX) {
    errno = EINVAL;
    return -1;
  }
  memset(&control, 0, sizeof(control));
  msg.msg_control = control.buf;
  msg.msg_controllen = CMSG_SPACE(size);
  struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(size);
  memcpy(CMSG_DATA(c), fds, size);
  ssize_t n;
  do
    n = sendmsg(socket, &msg, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -1 : 0;
}
