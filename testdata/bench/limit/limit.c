/*
 * limit ROOT COMMAND…: the least that starts a command in a container, as an
 * ordinary user: what nobody's start can be much faster than. New user and
 * mount namespaces, the user's own id in them, ROOT with the binds of the
 * other programs that `make bench` starts, a pivot, and exec. Linked
 * statically, as berth-join is.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static void die(const char *what) {
  fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0)
    die(path);
  close(fd);
}

static void bind(const char *source, const char *target) {
  if (mount(source, target, NULL, MS_BIND | MS_REC, NULL) != 0)
    die(target);
}

int main(int argc, char **argv) {
  static const char *const shared[] = {"/proc", "/sys", "/dev", "/tmp", "/var/tmp"};
  char text[64];
  unsigned uid = getuid(), gid = getgid();

  if (argc < 3)
    return 64;
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
    die("unshare");
  snprintf(text, sizeof text, "%u %u 1\n", uid, uid);
  put("/proc/self/uid_map", text);
  put("/proc/self/setgroups", "deny");
  snprintf(text, sizeof text, "%u %u 1\n", gid, gid);
  put("/proc/self/gid_map", text);
  if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0)
    die("propagation");
  bind(argv[1], argv[1]);
  if (chdir(argv[1]) != 0)
    die(argv[1]);
  for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
    bind(shared[i], shared[i] + 1);
  if (syscall(SYS_pivot_root, ".", ".") != 0)
    die("pivot_root");
  if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)
    die("the old root");
  execv(argv[2], argv + 2);
  die(argv[2]);
}
