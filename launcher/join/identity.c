#include "identity.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Changes whenever offers of an older program must not be taken. */
#define IDENTITY_VERSION "berth 1"

/* A process may have as many groups as this without losing warm starts. */
#define GROUPS_MAX 512

void identity_add(struct identity *id, const char *word) {
  size_t room = sizeof(id->text) - id->len;
  int n = snprintf(id->text + id->len, room, "%zu:%s,", strlen(word), word);
  if (n < 0 || (size_t)n >= room) {
    id->failed = true;
    return;
  }
  id->len += (size_t)n;
}

static void add_number(struct identity *id, unsigned long long n) {
  char text[24];
  snprintf(text, sizeof(text), "%llu", n);
  identity_add(id, text);
}

static void add_inode(struct identity *id, const char *path) {
  struct stat st;
  if (stat(path, &st) < 0) {
    id->failed = true;
    return;
  }
  add_number(id, st.st_ino);
}

static void add_groups(struct identity *id) {
  gid_t groups[GROUPS_MAX];
  int n = getgroups(GROUPS_MAX, groups);
  if (n < 0)
    id->failed = true;
  add_number(id, getegid());
  for (int i = 0; i < n; i++)
    add_number(id, groups[i]);
}

/* Reads a small file of /proc whole, with a NUL behind it. */
static bool read_file(const char *path, char *buf, size_t cap) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return false;
  size_t len = 0;
  ssize_t n;
  while ((n = read(fd, buf + len, cap - 1 - len)) > 0)
    len += (size_t)n;
  close(fd);
  buf[len] = '\0';
  return n == 0 && len < cap - 1;
}

/*
 * The session ends what stands ready (standby.h); its leader's start time tells it
 * from a later session of the same number. In proc(5) it is field 22, the 20th
 * behind the name in parentheses.
 */
static void add_session(struct identity *id) {
  char path[48], text[2048];
  pid_t session = getsid(0);
  snprintf(path, sizeof(path), "/proc/%d/stat", (int)session);
  if (session <= 0 || !read_file(path, text, sizeof(text))) {
    id->failed = true;
    return;
  }
  char *field = strrchr(text, ')');
  for (int i = 0; field != NULL && i < 20; i++)
    field = strchr(field + 1, ' ');
  if (field == NULL) {
    id->failed = true;
    return;
  }
  add_number(id, (unsigned long long)session);
  add_number(id, strtoull(field, NULL, 10));
}

static void add_cgroup(struct identity *id) {
  char text[4096];
  if (!read_file("/proc/self/cgroup", text, sizeof(text)))
    id->failed = true;
  else
    identity_add(id, text);
}

static void add_folder(struct identity *id) {
  char path[4096];
  if (getcwd(path, sizeof(path)) == NULL || path[0] != '/')
    id->failed = true;
  else
    identity_add(id, path);
}

void identity_of_process(struct identity *id) {
  id->len = 0;
  id->text[0] = '\0';
  id->failed = getuid() != geteuid() || getgid() != getegid();
  identity_add(id, IDENTITY_VERSION);
  add_number(id, geteuid());
  add_groups(id);
  add_inode(id, "/proc/self/ns/user");
  add_inode(id, "/proc/self/ns/mnt");
  add_inode(id, "/proc/self/ns/net");
  add_inode(id, "/proc/self/ns/pid");
  add_inode(id, "/proc/self/root/.");
  add_session(id);
  add_cgroup(id);
  add_folder(id);
}

/* FNV-1a; an offer holds the identity itself, so a clash costs a warm start only. */
void identity_name(const struct identity *id, char name[IDENTITY_NAME]) {
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < id->len; i++)
    hash = (hash ^ (unsigned char)id->text[i]) * 1099511628211u;
  snprintf(name, IDENTITY_NAME, "%016" PRIx64, hash);
}
