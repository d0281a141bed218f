/*
 * berth-join: joins a container that exists already and runs a command in it.
 * Used by `berth run`, `exec` and `shell`; Slurm's tasks join in the plugin.
 * Runs as the user who owns the container's namespaces.
 *
 *   berth-join --user=FD --mnt=FD [--user2=FD] --result=FD
 *              [--keep-env=NAME[,NAME]]... [--cwd=PATH] -- CMD [ARG]...
 *   berth-join --user=FD --mnt=FD [--user2=FD] --result=FD --hold
 *
 * --cwd is where the command starts if the container has that folder. With
 * --hold the process stays in the container and runs nothing: it writes one
 * byte to standard output when it is in, and stays, without descriptors, after
 * it has read one from standard input.
 *
 * Exit status: the command's own, or as a shell's: 127 no such command, 126
 * it can't be run; 70 where the container can't be joined; 64 wrong usage,
 * or a working directory that the container does not have.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "join.h"

enum { EXIT_USAGE = 64, EXIT_BUG = 70, EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127 };

struct arguments {
  struct join_namespaces ns;
  int result;
  const char **keep; /* room for one per argument */
  size_t keep_count;
  const char *cwd;
  bool hold;
  char **command;
};

static int descriptor(const char *text) {
  char *end;
  long fd = strtol(text, &end, 10);
  if (*text == '\0' || *end != '\0' || fd < 0 || fd > 1 << 20)
    return -1;
  return (int)fd;
}

static void usage(void) {
  fputs("usage: berth-join --user=FD --mnt=FD [--user2=FD] --result=FD [--keep-env=NAME]... -- "
        "CMD [ARG]...\n",
        stderr);
  exit(EXIT_USAGE);
}

static void parse(int argc, char **argv, struct arguments *a) {
  static const struct option options[] = {
      {"user", required_argument, NULL, 'u'},     {"mnt", required_argument, NULL, 'm'},
      {"user2", required_argument, NULL, 'v'},    {"result", required_argument, NULL, 'r'},
      {"keep-env", required_argument, NULL, 'k'}, {"cwd", required_argument, NULL, 'c'},
      {"hold", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0},
  };
  int c;
  while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
    if (c == 'k')
      a->keep[a->keep_count++] = optarg;
    else if (c == 'c')
      a->cwd = optarg;
    else if (c == 'h')
      a->hold = true;
    else if (c == 'u')
      a->ns.user = descriptor(optarg);
    else if (c == 'm')
      a->ns.mnt = descriptor(optarg);
    else if (c == 'r')
      a->result = descriptor(optarg);
    else if (c != 'v' || (a->ns.user2 = descriptor(optarg)) < 0)
      usage();
  }
  a->command = argv + optind;
  if (a->ns.user < 0 || a->ns.mnt < 0 || a->result < 0 || (a->command[0] == NULL) != a->hold)
    usage();
}

static bool environ_has(void *context, const char *name) {
  (void)context;
  return getenv(name) != NULL;
}

static int environ_set(void *context, const char *name, const char *value) {
  (void)context;
  return setenv(name, value, 1);
}

static void environ_unset(void *context, const char *name) {
  (void)context;
  unsetenv(name);
}

static const char *environ_entry(void *context, size_t number) {
  (void)context;
  return environ == NULL ? NULL : environ[number];
}

static int join(const struct arguments *a, struct join_error *err) {
  static struct join_result result;
  struct join_environment env = {
      .has = environ_has,
      .set = environ_set,
      .unset = environ_unset,
      .entry = environ_entry,
      .keep = a->keep,
      .keep_count = a->keep_count,
  };
  if (join_read_result(a->result, &result, err) < 0 || join_enter(&a->ns, result.cwd, err) < 0)
    return -1;
  return join_set_environment(&result, &env, err);
}

/* The command must not see our descriptors; it keeps every other it was given. */
static void close_own(const struct arguments *a) {
  close(a->ns.user);
  close(a->ns.mnt);
  close(a->result);
  if (a->ns.user2 >= 0)
    close(a->ns.user2);
}

/* Whoever joins later looks at this process, so it must be dumpable; its memory
 * is this program's alone. Signals keep their defaults: a killed holder ends. */
static int hold(void) {
  char c = 1;
  prctl(PR_SET_NAME, "berth-hold");
  if (prctl(PR_SET_DUMPABLE, 1) < 0 || write(STDOUT_FILENO, &c, 1) != 1 ||
      read(STDIN_FILENO, &c, 1) != 1)
    return EXIT_BUG;
  if (syscall(SYS_close_range, 0, ~0U, 0) < 0)
    for (int fd = 0; fd < 1024; fd++) /* before Linux 5.9 */
      close(fd);
  for (;;)
    pause();
}

int main(int argc, char **argv) {
  struct arguments a = {.ns = {.user = -1, .mnt = -1, .user2 = -1}, .result = -1};
  struct join_error err;
  a.keep = calloc((size_t)argc, sizeof(*a.keep));
  if (a.keep == NULL)
    return EXIT_BUG;
  parse(argc, argv, &a);
  if (join(&a, &err) < 0) {
    fprintf(stderr, "berth: error: %s\n", err.text);
    if (err.remedy != NULL)
      fprintf(stderr, "berth:   %s\n", err.remedy);
    return err.remedy == NULL ? EXIT_BUG : EXIT_USAGE;
  }
  close_own(&a);
  if (a.hold)
    return hold();
  if (a.cwd != NULL && chdir(a.cwd) < 0)
    errno = 0; /* the container has no such folder: it starts where all do */
  execvp(a.command[0], a.command);
  int why = errno;
  fprintf(stderr, "berth: error: cannot run %s in the container: %s\n", a.command[0],
          strerror(why));
  return why == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}
