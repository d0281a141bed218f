#include "commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "call.h"
#include "channel.h"
#include "child.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum { VALUE_SIZE = 32 * 1024 };

/* Where the image sets no PATH and the job has none. */
#define STANDARD_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* What the helper and Slurm's commands need of the job's environment outside. */
static const char *const passed[] = {"PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT"};

enum { PASSED_COUNT = sizeof(passed) / sizeof(passed[0]) };

static void collect(spank_t sp, char *env[PASSED_COUNT + 1]) {
  static char value[VALUE_SIZE];
  size_t n = 0;
  for (size_t i = 0; i < PASSED_COUNT; i++)
    if (spank_getenv(sp, passed[i], value, sizeof(value)) == ESPANK_SUCCESS &&
        asprintf(&env[n], "%s=%s", passed[i], value) >= 0)
      n++;
  env[n] = NULL;
}

static int start(const char *program, int listening, int task, char *const *env) {
  char *argv[] = {(char *)program, "serve", NULL};
  struct child c = {
      .path = program,
      .argv = argv,
      .env = env,
      .fds = {listening, task, -1, -1},
      .own_session = true,
      .orphan = true, /* the command must not meet a child that it did not start */
  };
  return child_start(&c);
}

int commands_serve(spank_t sp, const char *program, char name[COMMANDS_NAME_SIZE]) {
  char *env[PASSED_COUNT + 1];
  int task = (int)syscall(SYS_pidfd_open, getpid(), 0);
  int listening = channel_listen(name, COMMANDS_NAME_SIZE);
  int rc = -1;
  if (task >= 0 && listening >= 0) {
    collect(sp, env);
    rc = start(program, listening, task, env);
    for (char **e = env; *e != NULL; e++)
      free(*e);
  }
  int why = errno;
  if (task >= 0)
    close(task);
  if (listening >= 0)
    close(listening);
  errno = why;
  return rc;
}

int commands_offer(spank_t sp, const char *name) {
  static char path[VALUE_SIZE], longer[VALUE_SIZE + sizeof(CALL_FOLDER) + 1];
  if (spank_getenv(sp, "PATH", path, sizeof(path)) != ESPANK_SUCCESS || path[0] == '\0')
    snprintf(path, sizeof(path), "%s", STANDARD_PATH);
  snprintf(longer, sizeof(longer), "%s:%s", CALL_FOLDER, path);
  if (spank_setenv(sp, "PATH", longer, 1) != ESPANK_SUCCESS ||
      spank_setenv(sp, CALL_SOCKET, name, 1) != ESPANK_SUCCESS)
    return -1;
  return 0;
}
