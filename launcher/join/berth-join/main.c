/*
 * berth-join: joins a container that exists already and runs a command in it.
 * Used by `berth run`, `exec` and `shell`; Slurm's tasks join in the plugin.
 * Runs as the user who owns the container's namespaces.
 *
 *   berth-join --user=FD --mnt=FD [--user2=FD] --result=FD
 *              [--ipc=FD] [--uts=FD] [--net=FD] [--pid=FD | --new-pid]
 *              [--keep-env=NAME[,NAME]]... [--cwd=PATH] -- CMD [ARG]...
 *   berth-join --user=FD --mnt=FD [--user2=FD] --result=FD --hold
 *
 * --cwd is where the command starts if the container has that folder. With
 * --hold the process stays in the container and runs nothing: it writes one
 * byte to standard output when it is in, and stays, without descriptors, after
 * it has read one from standard input.
 *
 *   berth-join --standby NAME SECONDS   keeps a container ready, see standby.h
 *
 * Exit status: the command's own, or as a shell's: 127 no such command, 126
 * it can't be run; 70 where the container can't be joined; 64 wrong usage,
 * or a working directory that the container does not have.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../pid.h"
#include "../standby.h"
#include "../task.h"

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

static void add_own(struct task *a, const char *kind) {
  int fd = descriptor(optarg);
  if (fd < 0 || a->ns.own_count == JOIN_OWN_MAX)
    usage();
  a->ns.own[a->ns.own_count++] = (struct join_own){fd, join_type(kind)};
}

static void parse(int argc, char **argv, struct task *a) {
  static const struct option options[] = {
      {"user", required_argument, NULL, 'u'},
      {"mnt", required_argument, NULL, 'm'},
      {"user2", required_argument, NULL, 'v'},
      {"result", required_argument, NULL, 'r'},
      {"keep-env", required_argument, NULL, 'k'},
      {"cwd", required_argument, NULL, 'c'},
      {"hold", no_argument, NULL, 'h'},
      {"ipc", required_argument, NULL, 'o'},
      {"uts", required_argument, NULL, 'o'},
      {"net", required_argument, NULL, 'o'},
      {"pid", required_argument, NULL, 'p'},
      {"new-pid", no_argument, NULL, 'n'},
      {NULL, 0, NULL, 0},
  };
  int c, index;
  while ((c = getopt_long(argc, argv, "+", options, &index)) != -1) {
    if (c == 'k')
      a->keep[a->keep_count++] = optarg;
    else if (c == 'c')
      a->cwd = optarg;
    else if (c == 'h')
      a->hold = true;
    else if (c == 'o')
      add_own(a, options[index].name);
    else if (c == 'n')
      a->pid = PID_NEW;
    else if (c == 'p' && descriptor(optarg) > 0)
      a->pid = descriptor(optarg);
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

int main(int argc, char **argv) {
  struct task t = {.ns = {.user = -1, .mnt = -1, .user2 = -1}, .result = -1};
  if (argc == 4 && strcmp(argv[1], "--standby") == 0)
    return standby_main(argv[2], argv[3]);
  t.keep = calloc((size_t)argc, sizeof(*t.keep));
  if (t.keep == NULL)
    return EXIT_BUG;
  parse(argc, argv, &t);
  return task_run(&t);
}
