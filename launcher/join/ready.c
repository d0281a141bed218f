#include "ready.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "standby.h"
#include "task.h"

/* A run with more words before its command gets no warm start. */
enum { PREFIX_MAX = 64, PATIENCE_US = 200 * 1000 };

/* A container that somebody offers. */
struct offer {
  int fds[READY_FDS];
  char data[WIRE_MAX]; /* a valid message */
  size_t len;
};

static int open_private(const char *path, bool make) {
  struct stat st;
  if (make && mkdir(path, 0700) < 0 && errno != EEXIST)
    return -1;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 077) != 0)) {
    close(fd);
    return -1;
  }
  return fd;
}

int ready_folder(bool make) {
  char path[256];
  const char *runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime != NULL && runtime[0] == '/') {
    int n = snprintf(path, sizeof(path), "%s/berth", runtime);
    int fd = n < (int)sizeof(path) ? open_private(path, make) : -1;
    if (fd >= 0)
      return fd;
  }
  snprintf(path, sizeof(path), "/tmp/berth-%u", (unsigned)geteuid());
  return open_private(path, make);
}

/* Returns a socket to the holder of name, or -1. One that is stopped is not waited for. */
static int connect_to(int folder, const char *name) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  struct timeval patience = {.tv_usec = PATIENCE_US};
  snprintf(to.sun_path, sizeof(to.sun_path), "/proc/self/fd/%d/%s", folder, name);
  int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (sock < 0)
    return -1;
  if (setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
      setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
      connect(sock, (struct sockaddr *)&to, sizeof(to)) < 0) {
    close(sock);
    return -1;
  }
  return sock;
}

static void close_offer(struct offer *o) {
  for (int i = 0; i < READY_FDS; i++)
    close(o->fds[i]);
}

static bool receive_descriptors(int sock, int fds[READY_FDS]) {
  char byte;
  union {
    char bytes[CMSG_SPACE(READY_FDS * sizeof(int))];
    struct cmsghdr align;
  } control;
  struct iovec iov = {.iov_base = &byte, .iov_len = 1};
  struct msghdr msg = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
  if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
    return false;
  struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
  if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
      c->cmsg_len != CMSG_LEN(READY_FDS * sizeof(int)))
    return false;
  memcpy(fds, CMSG_DATA(c), READY_FDS * sizeof(int));
  return true;
}

static bool read_offer(struct offer *o) {
  ssize_t n;
  o->len = 0;
  while ((n = pread(o->fds[READY_OFFER], o->data + o->len, sizeof(o->data) - o->len,
                    (off_t)o->len)) > 0)
    o->len += (size_t)n;
  return n == 0 && wire_valid(o->data, o->len);
}

static bool receive_offer(int sock, struct offer *o, int *pid) {
  struct ucred holder;
  socklen_t len = sizeof(holder);
  if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &holder, &len) < 0 || holder.uid != geteuid())
    return false;
  *pid = holder.pid;
  if (!receive_descriptors(sock, o->fds))
    return false;
  if (read_offer(o))
    return true;
  close_offer(o);
  return false;
}

static bool still_seen(const char *entry) {
  char name[256];
  const char *equals = strchr(entry, '=');
  if (equals == NULL || (size_t)(equals - entry) >= sizeof(name))
    return false;
  memcpy(name, entry, (size_t)(equals - entry));
  name[equals - entry] = '\0';
  const char *now = getenv(name);
  return now != NULL && strcmp(now, equals + 1) == 0;
}

static bool same_file(const char *text) {
  uintmax_t dev, ino, size, sec, nsec;
  int at = -1;
  struct stat st;
  if (sscanf(text, "%ju:%ju:%ju:%ju:%ju:%n", &dev, &ino, &size, &sec, &nsec, &at) != 5 || at < 0)
    return false;
  return stat(text + at, &st) == 0 && st.st_dev == dev && st.st_ino == ino &&
         (uintmax_t)st.st_size == size && (uintmax_t)st.st_mtim.tv_sec == sec &&
         (uintmax_t)st.st_mtim.tv_nsec == nsec;
}

/* Attributes that are known are good enough, and nothing is mounted for this. */
static bool same_source(const char *text) {
  uintmax_t dev, ino;
  int at = -1;
  struct statx st;
  if (sscanf(text, "%ju:%ju:%n", &dev, &ino, &at) != 2 || at < 0)
    return false;
  return statx(AT_FDCWD, text + at, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) == 0 &&
         makedev(st.stx_dev_major, st.stx_dev_minor) == dev && st.stx_ino == ino;
}

static bool absent(const char *path) {
  struct stat st;
  return stat(path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR);
}

static bool in_time(const char *until) {
  struct timespec now;
  return clock_gettime(CLOCK_BOOTTIME, &now) == 0 && now.tv_sec < strtoll(until, NULL, 10);
}

static bool ends_with(const char *name, size_t len, const char *suffix) {
  size_t n = strlen(suffix);
  return len >= n && memcmp(name + len - n, suffix, n) == 0;
}

static bool is_seen(const struct offer *o, const char *entry) {
  struct wire_reader r;
  struct wire_record rec;
  wire_read(&r, o->data, o->len);
  while (wire_next(&r, &rec))
    if (wire_key_is(&rec, "sees") && strcmp(rec.value, entry) == 0)
      return true;
  return false;
}

static bool all_seen(const struct offer *o, const char *suffix) {
  for (char **e = environ; *e != NULL; e++)
    if (ends_with(*e, strcspn(*e, "="), suffix) && !is_seen(o, *e))
      return false;
  return true;
}

/* Says whether one condition of an offer holds; what a task does is none. */
static bool holds(const struct offer *o, const struct wire_record *rec, const struct identity *id) {
  if (wire_key_is(rec, "identity"))
    return strcmp(rec->value, id->text) == 0;
  if (wire_key_is(rec, "until"))
    return in_time(rec->value);
  if (wire_key_is(rec, "sees"))
    return still_seen(rec->value);
  if (wire_key_is(rec, "misses"))
    return getenv(rec->value) == NULL;
  if (wire_key_is(rec, "ending"))
    return all_seen(o, rec->value);
  if (wire_key_is(rec, "file"))
    return same_file(rec->value);
  if (wire_key_is(rec, "source"))
    return same_source(rec->value);
  if (wire_key_is(rec, "absent"))
    return absent(rec->value);
  return true;
}

static bool good(const struct offer *o, const struct identity *id) {
  struct wire_reader r;
  struct wire_record rec;
  if (wire_get(o->data, o->len, "identity") == NULL || wire_get(o->data, o->len, "until") == NULL)
    return false;
  wire_read(&r, o->data, o->len);
  while (wire_next(&r, &rec))
    if (!holds(o, &rec, id))
      return false;
  return true;
}

static enum ready_found look(int folder, const char *name, const struct identity *id,
                             struct offer *o, int *pid) {
  *pid = 0;
  int sock = connect_to(folder, name);
  if (sock < 0)
    return READY_NOTHING;
  bool got = receive_offer(sock, o, pid);
  close(sock);
  if (!got)
    return READY_STALE;
  if (good(o, id))
    return READY_GOOD;
  close_offer(o);
  return READY_STALE;
}

enum ready_found ready_look(int folder, const char *name, const struct identity *id, int *pid) {
  static struct offer o;
  enum ready_found found = look(folder, name, id, &o, pid);
  if (found == READY_GOOD)
    close_offer(&o);
  return found;
}

/* The values of a key, at most cap of them. */
static size_t all(const struct offer *o, const char *key, const char **values, size_t cap) {
  struct wire_reader r;
  struct wire_record rec;
  size_t n = 0;
  wire_read(&r, o->data, o->len);
  while (n < cap && wire_next(&r, &rec))
    if (wire_key_is(&rec, key))
      values[n++] = rec.value;
  return n;
}

static bool change_environment(const struct offer *o) {
  struct wire_reader r;
  struct wire_record rec;
  wire_read(&r, o->data, o->len);
  while (wire_next(&r, &rec)) {
    if (wire_key_is(&rec, "unset") && unsetenv(rec.value) < 0)
      return false;
    if (wire_key_is(&rec, "set") && putenv((char *)rec.value) != 0)
      return false;
  }
  return true;
}

/* From here on there is no way back: the process ends with the command. */
static void become(struct offer *o, char **command) {
  enum { MOST = 1024 };
  static const char *keep[MOST], *words[MOST + 1];
  struct task t = {
      .ns = {.user = o->fds[READY_USER], .mnt = o->fds[READY_MNT], .user2 = o->fds[READY_USER2]},
      .result = o->fds[READY_RESULT],
      .keep = keep,
      .keep_count = all(o, "keep", keep, MOST),
      .command = command,
  };
  if (command[0] == NULL && all(o, "argv", words, MOST) > 0)
    t.command = (char **)words;
  if (t.command[0] == NULL || !change_environment(o))
    return;
  close(o->fds[READY_OFFER]);
  _exit(task_run(&t));
}

/*
 * The command of a run whose words up to argv[last] stand before it. A word
 * with a dash may be an option of the run's, after the image.
 */
static char **command_after(char **argv, int last) {
  char **command = argv + last + 1;
  if (command[0] == NULL || command[0][0] != '-')
    return command;
  return strcmp(command[0], "--") == 0 && command[1] != NULL ? command + 1 : NULL;
}

static bool may_be_ready(int argc, char **argv) {
  return argc >= 3 && strcmp(argv[1], "run") == 0;
}

void ready_run(int argc, char **argv) {
  static struct identity id;
  static struct offer o;
  char name[IDENTITY_NAME];
  int pid;
  if (!may_be_ready(argc, argv))
    return;
  int folder = ready_folder(false);
  if (folder < 0)
    return;
  identity_of_process(&id);
  identity_add(&id, argv[1]);
  for (int last = 2; last < argc && last < PREFIX_MAX && !id.failed; last++) {
    identity_add(&id, argv[last]);
    identity_name(&id, name);
    char **command = command_after(argv, last);
    if (command != NULL && look(folder, name, &id, &o, &pid) == READY_GOOD) {
      become(&o, command);
      close_offer(&o);
    }
  }
  close(folder);
}
