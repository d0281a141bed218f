/*
 * Times the join in the place where it happens: the plugin is linked once
 * more with this file and -Wl,--wrap, so that slurmstepd's forked task calls
 * the same functions through these. From the call that reads the result to
 * the return of the one that sets the environment, a task adds one line of
 * nanoseconds (all of it, and of that entering the namespaces) to a file that
 * the container sees.
 */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "join.h"

#define JOIN_TIMES "/shared/join.ns"

int __real_join_read_result(int fd, struct join_result *result, struct join_error *err);
int __real_join_enter(const struct join_namespaces *ns, const char *cwd, struct join_error *err);
int __real_join_set_environment(const struct join_result *result,
                                const struct join_environment *env, struct join_error *err);

static long long begin, entering;

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int __wrap_join_read_result(int fd, struct join_result *result, struct join_error *err) {
  begin = now();
  return __real_join_read_result(fd, result, err);
}

int __wrap_join_enter(const struct join_namespaces *ns, const char *cwd, struct join_error *err) {
  long long start = now();
  int rc = __real_join_enter(ns, cwd, err);
  entering = now() - start;
  return rc;
}

int __wrap_join_set_environment(const struct join_result *result,
                                const struct join_environment *env, struct join_error *err) {
  int rc = __real_join_set_environment(result, env, err);
  long long total = now() - begin;
  int fd = open(JOIN_TIMES, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd >= 0) {
    dprintf(fd, "%lld %lld\n", total, entering);
    close(fd);
  }
  return rc;
}
