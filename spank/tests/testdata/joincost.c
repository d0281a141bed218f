/*
 * What a join costs a task: forks COUNT processes one after another that join
 * a container, and prints for each the nanoseconds of reading the result,
 * entering the namespaces and setting the environment.
 *
 *   joincost COUNT USER-FD MNT-FD USER2-FD RESULT-FD
 *
 * It ends with exit code 1 if one of them is left with a capability, or has
 * become dumpable.
 */
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "join.h"

static bool has(void *context, const char *name) {
  (void)context;
  return getenv(name) != NULL;
}

static int set(void *context, const char *name, const char *value) {
  (void)context;
  return setenv(name, value, 1);
}

static void unset(void *context, const char *name) {
  (void)context;
  unsetenv(name);
}

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Before exec: exec itself changes both. */
static bool harmless(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
  if (syscall(SYS_capget, &header, caps) < 0)
    return false;
  return (caps[0].permitted | caps[1].permitted | caps[0].effective | caps[0].inheritable) == 0 &&
         prctl(PR_GET_DUMPABLE) == 0;
}

static const char *entry(void *context, size_t number) {
  (void)context;
  return environ[number];
}

static int join(const struct join_namespaces *ns, int result_fd) {
  static struct join_result result;
  struct join_error err;
  struct join_environment env = {.has = has, .set = set, .unset = unset, .entry = entry};
  prctl(PR_SET_DUMPABLE, 0); /* as Slurm's tasks are, which were root */
  long long begin = now();
  if (join_read_result(result_fd, &result, &err) < 0 || join_enter(ns, result.cwd, &err) < 0 ||
      join_set_environment(&result, &env, &err) < 0) {
    fprintf(stderr, "%s\n", err.text);
    return 1;
  }
  printf("%lld\n", now() - begin);
  fflush(stdout);
  if (harmless())
    return 0;
  fprintf(stderr, "capabilities are left, or the process has become dumpable\n");
  return 1;
}

int main(int argc, char **argv) {
  int status = 0;
  if (argc != 6)
    return 64;
  struct join_namespaces ns = {.user = atoi(argv[2]), .mnt = atoi(argv[3]), .user2 = atoi(argv[4])};
  for (int i = 0; i < atoi(argv[1]) && status == 0; i++) {
    pid_t pid = fork();
    if (pid == 0)
      _exit(join(&ns, atoi(argv[5])));
    waitpid(pid, &status, 0);
  }
  return status == 0 ? 0 : 1;
}
