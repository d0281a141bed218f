#include "filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_SPEC_ALLOW /* Linux 4.17 */
#define SECCOMP_FILTER_FLAG_SPEC_ALLOW (1UL << 2)
#endif

enum { CALLS_MAX = 40, PROGRAM_MAX = 256 };

/* The calls of one ABI. Lists end with -1. */
struct abi {
  unsigned arch;
  unsigned ignore;     /* bits of the number that choose another ABI of the same calls */
  int fake[CALLS_MAX]; /* succeed without doing anything */
  int mknod[2];        /* likewise, if it is a device, by the mode in argument 1 … */
  int mknodat[2];      /* … and 2 */
};

/* This machine's own calls, and those that its kernels take from older
 * programs, whose numbers are from the kernel's tables (arch/.../syscall*.tbl). */
static const struct abi abis[] = {
#if defined(__x86_64__)
    {.arch = AUDIT_ARCH_X86_64,
     .ignore = 0x40000000, /* x32 */
     .fake = {SYS_chown, SYS_fchown, SYS_lchown, SYS_fchownat, SYS_setuid, SYS_setgid, SYS_setreuid,
              SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups,
              SYS_capset, -1},
     .mknod = {SYS_mknod, -1},
     .mknodat = {SYS_mknodat, -1}},
    {.arch = AUDIT_ARCH_I386,
     .fake =
         {182, 212, 95,  207, 16,  198, 298, /* chown, fchown, lchown, each also …32; fchownat */
          23,  213, 46,  214, 70,  203, 71,  204,          /* setuid, setgid, setreuid, setregid */
          164, 208, 170, 210, 138, 215, 139, 216, 81, 206, /* setres.id, setfs.id, setgroups */
          185, -1},                                        /* capset */
     .mknod = {14, -1},
     .mknodat = {297, -1}},
#elif defined(__aarch64__)
    {.arch = AUDIT_ARCH_AARCH64,
     .fake = {SYS_fchown, SYS_fchownat, SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid,
              SYS_setresuid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups, SYS_capset,
              -1},
     .mknod = {-1},
     .mknodat = {SYS_mknodat, -1}},
    {.arch = AUDIT_ARCH_ARM,
     .fake = {182, 212, 95,  207, 16,  198, 325, 23,  213, 46, 214, 70,  203, 71,
              204, 164, 208, 170, 210, 138, 215, 139, 216, 81, 206, 185, -1},
     .mknod = {14, -1},
     .mknodat = {324, -1}},
#else
#error "no list of system calls for this architecture"
#endif
};

struct program {
  struct sock_filter code[PROGRAM_MAX];
  unsigned short len;
};

static void add(struct program *p, unsigned short code, unsigned k, unsigned char yes,
                unsigned char no) {
  p->code[p->len++] = (struct sock_filter){.code = code, .k = k, .jt = yes, .jf = no};
}

static void load(struct program *p, size_t offset) {
  add(p, BPF_LD | BPF_W | BPF_ABS, (unsigned)offset, 0, 0);
}

static void answer(struct program *p, unsigned action) {
  add(p, BPF_RET | BPF_K, action, 0, 0);
}

static void fake(struct program *p, const int *calls) {
  for (; *calls >= 0; calls++) {
    add(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)*calls, 0, 1);
    answer(p, SECCOMP_RET_ERRNO); /* errno 0: success */
  }
}

/* Devices alone: everybody may make fifos, sockets and files. */
static void fake_devices(struct program *p, const int *calls, int argument) {
  size_t mode = offsetof(struct seccomp_data, args) + (size_t)argument * sizeof(__u64);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  mode += sizeof(__u32);
#endif
  for (; *calls >= 0; calls++) {
    add(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)*calls, 0, 6);
    load(p, mode);
    add(p, BPF_ALU | BPF_AND | BPF_K, S_IFMT, 0, 0);
    add(p, BPF_JMP | BPF_JEQ | BPF_K, S_IFCHR, 1, 0);
    add(p, BPF_JMP | BPF_JEQ | BPF_K, S_IFBLK, 0, 1);
    answer(p, SECCOMP_RET_ERRNO);
    answer(p, SECCOMP_RET_ALLOW);
  }
}

/* A jump is 8 bits wide, so a foreign ABI is skipped with a long one. */
static void add_abi(struct program *p, const struct abi *a) {
  load(p, offsetof(struct seccomp_data, arch));
  add(p, BPF_JMP | BPF_JEQ | BPF_K, a->arch, 1, 0);
  unsigned short skip = p->len;
  add(p, BPF_JMP | BPF_JA, 0, 0, 0);
  load(p, offsetof(struct seccomp_data, nr));
  add(p, BPF_ALU | BPF_AND | BPF_K, ~a->ignore, 0, 0);
  fake(p, a->fake);
  fake_devices(p, a->mknod, 1);
  fake_devices(p, a->mknodat, 2);
  answer(p, SECCOMP_RET_ALLOW);
  p->code[skip].k = p->len - skip - 1u;
}

int filter_install(void) {
  static struct program p;
  p.len = 0;
  for (size_t i = 0; i < sizeof(abis) / sizeof(abis[0]); i++)
    add_abi(&p, &abis[i]);
  answer(&p, SECCOMP_RET_ALLOW);
  struct sock_fprog prog = {.len = p.len, .filter = p.code};
  /* Without this flag, kernels before 5.16 slow every filtered task down by a
   * defence that only programs which run foreign code in their own process need. */
  unsigned long flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW;
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog) == 0)
    return 0;
  return errno == ENOSYS || errno == EINVAL ? 0 : -1;
}

bool filter_wanted(void) {
  char map[256];
  unsigned inside, outside, count;
  char more;
  int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, map, sizeof(map) - 1);
  if (fd >= 0)
    close(fd);
  if (n <= 0)
    return true;
  map[n] = '\0';
  return sscanf(map, "%u %u %u %c", &inside, &outside, &count, &more) == 3 && count == 1;
}
