#include "task.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pid.h"
#include "variables.h"

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

static int enter(const struct task *t, struct join_error *err) {
  static struct join_result result;
  struct join_environment env = {
      .has = environ_has,
      .set = environ_set,
      .unset = environ_unset,
      .entry = environ_entry,
      .keep = t->keep,
      .keep_count = t->keep_count,
  };
  if (join_read_result(t->result, &result, err) < 0 || join_move(&t->ns, err) < 0 ||
      pid_enter(t->pid, &t->ns, err) < 0 || join_become(&t->ns, result.cwd, err) < 0)
    return -1;
  if (join_set_environment(&result, &env, err) < 0)
    return -1;
  return variables_expected(&result) ? variables_take(&result, &env, err) : 0;
}

/* The command must not see our descriptors; it keeps every other it was given. */
static void close_own(const struct task *t) {
  close(t->ns.user);
  close(t->ns.mnt);
  close(t->result);
  for (size_t i = 0; i < t->ns.own_count; i++)
    close(t->ns.own[i].fd);
  if (t->pid > 0)
    close(t->pid);
  if (t->ns.user2 >= 0)
    close(t->ns.user2);
}

/* A file system whose server is gone answers ENOTCONN, or EIO for what was on its way. */
static bool server_is_gone(int why) {
  return why == ENOTCONN || why == EIO || why == ECONNABORTED;
}

static int cannot_run(const char *name, int why) {
  fprintf(stderr, "berth: error: cannot run %s in the container: %s\n", name, strerror(why));
  if (server_is_gone(why)) {
    fputs(
        "berth:   squashfuse_ll, which serves the image's files, has ended: run the command again; "
        "if memory ran out, ask for more\n",
        stderr);
    return EXIT_SITE;
  }
  return why == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
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

int task_run(const struct task *t) {
  struct join_error err;
  if (enter(t, &err) < 0) {
    fprintf(stderr, "berth: error: %s\n", err.text);
    if (err.remedy != NULL)
      fprintf(stderr, "berth:   %s\n", err.remedy);
    return err.remedy == NULL ? EXIT_BUG : EXIT_USAGE;
  }
  close_own(t);
  if (t->pid != PID_SAME) /* else a killed berth-join would leave its command behind */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (t->hold)
    return hold();
  if (t->cwd != NULL && chdir(t->cwd) < 0)
    errno = 0; /* the container has no such folder: it starts where all do */
  execvp(t->command[0], t->command);
  return cannot_run(t->command[0], errno);
}
