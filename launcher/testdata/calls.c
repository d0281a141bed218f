/*
 * Prints what system calls that need other ids, or devices, return in the
 * folder argv[1]: "NAME RESULT" per line, the result 0 or errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void say(const char *name, long result) {
  printf("%s %d\n", name, result == 0 ? 0 : errno);
}

static int exists(const char *name) {
  struct stat st;
  return stat(name, &st) == 0;
}

#ifdef __x86_64__
/* The calls of 32-bit programs. Pointers in them have 32 bits: NULL does. */
static long call32(long nr, long a, long b, long c) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory");
  errno = result < 0 ? (int)-result : 0;
  return result;
}

static void other_abis(int fd) {
  say("fchown of i386", call32(95, fd, 7, 8));
  say("setresuid32 of i386", call32(208, 7, 8, 9));
  say("mknod of i386", call32(14, 0, S_IFCHR | 0600, 0));
  say("fchown of x32", syscall(0x40000000 | SYS_fchown, fd, 7, 8));
}
#else
static void other_abis(int fd) {
  (void)fd;
}
#endif

int main(int argc, char **argv) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  gid_t group = 9;
  struct stat st;
  int fd;

  if (argc != 2 || chdir(argv[1]) < 0 || (fd = open("file", O_CREAT | O_RDWR, 0600)) < 0)
    return 1;
  say("chown", chown("file", 7, 8));
  say("fchown", fchown(fd, 7, 8));
  say("lchown", lchown("file", 7, 8));
  say("fchownat", fchownat(AT_FDCWD, "file", 7, 8, 0));
  say("setgroups", syscall(SYS_setgroups, 1, &group));
  say("setresgid", syscall(SYS_setresgid, 7, 7, 7));
  say("setregid", syscall(SYS_setregid, 7, 7));
  say("setgid", syscall(SYS_setgid, 7));
  say("setfsgid", syscall(SYS_setfsgid, 7));
  say("setresuid", syscall(SYS_setresuid, 7, 7, 7));
  say("setreuid", syscall(SYS_setreuid, 7, 7));
  say("setuid", syscall(SYS_setuid, 7));
  say("setfsuid", syscall(SYS_setfsuid, 7));
  say("mknod c", mknod("c", S_IFCHR | 0600, makedev(1, 3)));
  say("mknod b", mknod("b", S_IFBLK | 0600, makedev(7, 0)));
  say("mknodat c", syscall(SYS_mknodat, AT_FDCWD, "c", S_IFCHR | 0600, makedev(1, 3)));
  say("mknod p", mknod("p", S_IFIFO | 0600, 0));
  say("mknod f", mknod("f", S_IFREG | 0600, 0));
  other_abis(fd);
  say("capset", syscall(SYS_capset, &header, none));
  if (fstat(fd, &st) == 0)
    printf("file %u:%u\n", st.st_uid, st.st_gid);
  printf("made%s%s%s%s\nwho %u\n", exists("c") ? " c" : "", exists("b") ? " b" : "",
         exists("p") ? " p" : "", exists("f") ? " f" : "", getuid());
  return 0;
}
