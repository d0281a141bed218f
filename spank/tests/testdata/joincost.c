/*
 * What a join costs a task: forks COUNT processes one after another that join
 * a container, and prints for each the nanoseconds of reading the result,
 * entering the namespaces and setting the environment.
 *
 *   joincost COUNT USER-FD MNT-FD USER2-FD RESULT-FD
 */
#include <stdio.h>
#include <stdlib.h>
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

static int join(const struct join_namespaces *ns, int result_fd) {
  static struct join_result result;
  struct join_error err;
  struct join_environment env = {.has = has, .set = set, .unset = unset};
  long long begin = now();
  if (join_read_result(result_fd, &result, &err) < 0 || join_enter(ns, result.cwd, &err) < 0 ||
      join_set_environment(&result, &env, &err) < 0) {
    fprintf(stderr, "%s\n", err.text);
    return 1;
  }
  printf("%lld\n", now() - begin);
  fflush(stdout);
  return 0;
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
