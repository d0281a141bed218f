/*
 * channel: a peer sends any packets with any number of descriptors. What is no
 * call leaves nothing open. The input: the number of descriptors, the packet
 * that should be the call, behind a line feed the next one.
 */
#include <fcntl.h>

#include "fuzz.h"
#include "../../../client/channel.c"
#include "../../../../launcher/join/wire.c"

enum { SENT_MAX = 8 };

static void send_any(int sock, const uint8_t *data, size_t size, size_t fd_count) {
  union {
    struct cmsghdr header;
    char buf[CMSG_SPACE(sizeof(int) * SENT_MAX)];
  } control = {0};
  struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
  if (fd_count > 0) {
    msg.msg_control = control.buf;
    msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
    for (size_t i = 0; i < fd_count; i++)
      memcpy(CMSG_DATA(c) + i * sizeof(int), &(int){STDERR_FILENO}, sizeof(int));
  }
  MUST(sendmsg(sock, &msg, MSG_NOSIGNAL) >= 0);
}

/* The lowest descriptor that is free: a leak moves it. */
static int lowest(void) {
  int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
  MUST(fd >= 0);
  close(fd);
  return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  int ends[2], fds[CHANNEL_FDS], before = lowest();
  if (size < 1 || size > 4096)
    return 0;
  size_t fd_count = data[0] % (SENT_MAX + 1);
  const uint8_t *end = memchr(data + 1, '\n', size - 1);
  size_t first = end == NULL ? size : (size_t)(end - data);
  MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  int open = lowest();
  send_any(ends[0], data + 1, first - 1, fd_count);
  if (channel_receive_call(ends[1], fds)) {
    MUST(fd_count >= CHANNEL_FDS);
    for (int i = 0; i < CHANNEL_FDS; i++)
      MUST(close(fds[i]) == 0);
  }
  MUST(lowest() == open);
  if (end != NULL) {
    unsigned number;
    send_any(ends[0], end + 1, size - first - 1, fd_count);
    channel_receive(ends[1], "signal", &number);
    MUST(lowest() == open);
  }
  close(ends[0]);
  close(ends[1]);
  MUST(lowest() == before);
  return 0;
}
