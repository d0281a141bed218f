#include "entrypoint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "command.h"
#include "failure.h"
#include "variables.h"

#define STANDARD_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define REMEDY_SKIP                                                                                \
  "--no-container-entrypoint starts the tasks without it, --container-entrypoint-log shows what "  \
  "it prints"
#define REMEDY_LATE                                                                                \
  "--no-container-entrypoint starts the tasks without it; how long it may take is the site's: "    \
  "container.entrypoint_timeout"

enum { LOOK_MS = 10, PROGRESS_MS = 10000, TAIL_SIZE = 4096, PATH_SIZE = 4096, LIMIT_MS = 120000 };

/* An entrypoint that runs. */
struct run {
  const char *name; /* as the image has it */
  pid_t pid;
  int pidfd;  /* -1 before Linux 5.3 */
  int output; /* what it prints; -1 where that is not kept, or is at its end */
  char tail[TAIL_SIZE + 1];
  size_t len;
  long long start;
  int limit_ms;
};

__attribute__((format(printf, 3, 4))) static int fail(struct join_error *err, const char *remedy,
                                                      const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(err->text, sizeof(err->text), format, args);
  va_end(args);
  err->remedy = remedy;
  return -1;
}

static int limit_of(const struct join_result *result) {
  const char *text = wire_get(result->data, result->len, "entrypoint_limit");
  int ms = text == NULL ? 0 : atoi(text);
  return ms > 0 ? ms : LIMIT_MS;
}

/* The entrypoint's words, and behind them the command that it gets. Allocated. */
static char **arguments(const struct join_result *result) {
  struct wire_reader r;
  struct wire_record rec;
  size_t n = 0;
  wire_read(&r, result->data, result->len);
  while (wire_next(&r, &rec))
    n += wire_key_is(&rec, "entrypoint");
  char **argv = calloc(n + 2, sizeof(*argv));
  if (argv == NULL)
    return NULL;
  n = 0;
  wire_read(&r, result->data, result->len);
  while (wire_next(&r, &rec))
    if (wire_key_is(&rec, "entrypoint"))
      argv[n++] = (char *)rec.value;
  argv[n] = VARIABLES_READY;
  return argv;
}

/* Where the program is, by the PATH that it gets. False if nowhere. */
static bool find_program(const char *name, char *const *env, char path[PATH_SIZE]) {
  const char *list = STANDARD_PATH;
  if (strchr(name, '/') != NULL)
    return snprintf(path, PATH_SIZE, "%s", name) < PATH_SIZE;
  for (; *env != NULL; env++)
    if (strncmp(*env, "PATH=", 5) == 0)
      list = *env + 5;
  char *copy = strdup(list);
  bool found = copy != NULL && command_find(copy, name, path, PATH_SIZE);
  free(copy);
  return found;
}

static int cannot_start(const struct run *run, int why, struct join_error *err) {
  if (why == ENOENT)
    return fail(err, REMEDY_SKIP,
                "the image's entrypoint %.200s, or its interpreter, is not in the container",
                run->name);
  return fail(err, REMEDY_SKIP, "cannot run the image's entrypoint %.200s: %s", run->name,
              strerror(why));
}

static int start(struct run *run, char *const *argv, const struct entrypoint_task *task,
                 struct join_error *err) {
  char path[PATH_SIZE];
  int pipes[2] = {-1, -1};
  if (!find_program(argv[0], task->env, path))
    return cannot_start(run, ENOENT, err);
  if (!task->log && pipe2(pipes, O_CLOEXEC) < 0)
    return cannot_start(run, errno, err);
  int out = task->log ? STDERR_FILENO : pipes[1];
  struct child c = {
      .path = path,
      .argv = argv,
      .env = task->env,
      .fds = {-1, out, out, -1},
      .own_session = true,
      .in_place = true,
      .ends_with_us = SIGKILL,
  };
  run->pid = child_start(&c);
  int why = errno;
  if (pipes[1] >= 0)
    close(pipes[1]);
  run->output = pipes[0];
  if (run->pid < 0)
    return cannot_start(run, why, err);
  if (run->output >= 0)
    fcntl(run->output, F_SETFL, O_NONBLOCK);
  run->pidfd = (int)syscall(SYS_pidfd_open, run->pid, 0);
  return 0;
}

static void close_output(struct run *run) {
  if (run->output >= 0)
    close(run->output);
  run->output = -1;
}

/* Reads what is there; the last TAIL_SIZE bytes are kept. */
static void read_output(struct run *run) {
  char buf[TAIL_SIZE];
  ssize_t n;
  while (run->output >= 0 && (n = read(run->output, buf, sizeof(buf))) >= 0) {
    if (n == 0)
      close_output(run);
    size_t over = run->len + (size_t)n > TAIL_SIZE ? run->len + (size_t)n - TAIL_SIZE : 0;
    memmove(run->tail, run->tail + over, run->len - over);
    memcpy(run->tail + run->len - over, buf, (size_t)n);
    run->len += (size_t)n - over;
  }
}

static void print_tail(struct run *run) {
  char line[512];
  char *rest = NULL;
  run->tail[run->len] = '\0';
  for (char *text = strtok_r(run->tail, "\n", &rest); text != NULL;
       text = strtok_r(NULL, "\n", &rest)) {
    snprintf(line, sizeof(line), "entrypoint: %s", text);
    failure_progress(line);
  }
}

static void print_progress(const struct run *run, long long now) {
  char line[512];
  snprintf(line, sizeof(line), "the image's entrypoint %.200s is running (%lld s)", run->name,
           (now - run->start) / 1000);
  failure_progress(line);
}

/* Waits for output, or the end, or until a moment. */
static void wait_some(const struct run *run, long long until) {
  long long left = until - child_clock_ms();
  struct pollfd p[2] = {{.fd = run->output, .events = POLLIN},
                        {.fd = run->pidfd, .events = POLLIN}};
  if (run->pidfd < 0 && left > LOOK_MS)
    left = LOOK_MS;
  poll(p, 2, left < 0 ? 0 : (int)left);
}

/* Returns true with the wait status, or false when its time is over. */
static bool watch(struct run *run, int *status) {
  long long end = run->start + run->limit_ms;
  long long next = run->start + PROGRESS_MS;
  while (!child_wait(run->pid, 0, status)) {
    long long now = child_clock_ms();
    if (now >= end)
      return false;
    if (now >= next) {
      print_progress(run, now);
      next += PROGRESS_MS;
    }
    wait_some(run, next < end ? next : end);
    read_output(run);
  }
  read_output(run);
  return true;
}

/* What it has left behind goes on printing: somebody has to read that. The
 * reader is not a child that the task's command would meet. */
static void leave_reader(struct run *run) {
  char *argv[] = {"drain", NULL};
  char *env[] = {NULL};
  struct child c = {
      .path = VARIABLES_READY,
      .argv = argv,
      .env = env,
      .fds = {run->output, -1, -1, -1},
      .own_session = true,
      .orphan = true,
  };
  if (run->output >= 0) {
    fcntl(run->output, F_SETFL, 0); /* it waits */
    child_start(&c);
  }
  close_output(run);
}

static int explain_end(const struct run *run, int status, struct join_error *err) {
  if (WIFSIGNALED(status))
    return fail(err, REMEDY_SKIP, "the image's entrypoint %.200s was ended by signal %d", run->name,
                WTERMSIG(status));
  if (status != 0)
    return fail(err, REMEDY_SKIP, "the image's entrypoint %.200s ended with exit status %d",
                run->name, WEXITSTATUS(status));
  if (access(VARIABLES_ENVIRONMENT, F_OK) != 0)
    return fail(err, REMEDY_SKIP,
                "the image's entrypoint %.200s ended without running the command that it was given",
                run->name);
  return 0;
}

static int explain_late(const struct run *run, struct join_error *err) {
  bool ready = access(VARIABLES_ENVIRONMENT, F_OK) == 0;
  return fail(err, REMEDY_LATE, "the image's entrypoint %.200s %s within %d s", run->name,
              ready ? "has run its command, but did not end" : "did not run its command",
              run->limit_ms / 1000);
}

/* Runs the entrypoint to its end; it has left its environment, or err is filled. */
static int run_it(const struct join_result *result, const struct entrypoint_task *task,
                  struct join_error *err) {
  static struct run run;
  char **argv = arguments(result);
  int status = 0;
  if (argv == NULL)
    return fail(err, NULL, "no memory to run the image's entrypoint");
  run = (struct run){.name = argv[0],
                     .pidfd = -1,
                     .output = -1,
                     .start = child_clock_ms(),
                     .limit_ms = limit_of(result)};
  int rc = start(&run, argv, task, err);
  if (rc == 0 && watch(&run, &status)) {
    rc = explain_end(&run, status, err);
  } else if (rc == 0) {
    rc = explain_late(&run, err);
    child_end(run.pid, true, 0, &status);
  }
  if (rc < 0)
    print_tail(&run);
  else
    leave_reader(&run);
  close_output(&run);
  if (run.pidfd >= 0)
    close(run.pidfd);
  free(argv);
  return rc;
}

/* A shell sets these by itself; they say nothing about the tasks. */
static bool is_shells(const char *name) {
  static const char *const names[] = {"_", "PWD", "OLDPWD", "SHLVL"};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
    if (strcmp(name, names[i]) == 0)
      return true;
  return false;
}

static bool has_entry(char *const *env, const char *entry) {
  for (; *env != NULL; env++)
    if (strcmp(*env, entry) == 0)
      return true;
  return false;
}

/* Whether one of the entries in data, each ended by a NUL, sets the variable. */
static bool sets(const char *data, size_t len, const char *name) {
  size_t n = strlen(name);
  for (const char *v = data; v < data + len; v += strlen(v) + 1)
    if (strncmp(v, name, n) == 0 && v[n] == '=')
      return true;
  return false;
}

/* Only what has changed, because the rest is each task's own. Of what was
 * taken away, only what the image had brought: the job's stays. */
static void write_changes(FILE *f, const struct join_result *result, char *const *before,
                          const char *data, size_t len) {
  char name[JOIN_NAME_MAX];
  struct wire_reader r;
  struct wire_record rec;
  for (const char *v = data; v < data + len; v += strlen(v) + 1)
    if (join_name(v, name) && !is_shells(name) && !has_entry(before, v))
      fprintf(f, "env=%s%c", v, '\0');
  wire_read(&r, result->data, result->len);
  while (wire_next(&r, &rec))
    if (wire_key_is(&rec, "env") && join_name(rec.value, name) && !sets(data, len, name))
      fprintf(f, "unset=%s%c", name, '\0');
}

/* Turns the environment that the entrypoint has left into what all tasks take. */
static int keep_changes(const struct join_result *result, char *const *before,
                        struct join_error *err) {
  static char data[JOIN_RESULT_MAX];
  ssize_t len = variables_read(VARIABLES_ENVIRONMENT, data);
  if (len < 0 && errno == EFBIG)
    return fail(err, REMEDY_SKIP,
                "the image's entrypoint leaves variables of more than %zu MiB, which tasks cannot "
                "be given",
                JOIN_RESULT_MAX >> 20);
  if (len < 0 || (len > 0 && data[len - 1] != '\0'))
    return fail(err, REMEDY_SKIP, "cannot read the variables of the image's entrypoint: %s",
                len < 0 ? strerror(errno) : "they are cut off");
  FILE *f = fopen(VARIABLES_FILE ".new", "we");
  if (f == NULL)
    return fail(err, NULL, "cannot keep the variables of the image's entrypoint: %s",
                strerror(errno));
  write_changes(f, result, before, data, (size_t)len);
  bool failed = ferror(f) != 0;
  if (fclose(f) != 0 || failed || rename(VARIABLES_FILE ".new", VARIABLES_FILE) < 0)
    return fail(err, NULL, "cannot keep the variables of the image's entrypoint: %s",
                strerror(errno));
  return 0;
}

/* Returns the locked file, -1 with errno set. */
static int lock(void) {
  int fd = open(VARIABLES_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0)
    return -1;
  while (flock(fd, LOCK_EX) < 0)
    if (errno != EINTR) {
      close(fd);
      return -1;
    }
  return fd;
}

static bool there(const char *path) {
  return access(path, F_OK) == 0;
}

/* Makes the file of which the first maker runs the entrypoint. */
static int begin(void) {
  int fd = open(VARIABLES_BEGUN, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  return fd < 0 ? -1 : close(fd);
}

/*
 * Waits for who runs it, whose lock goes with the process. Tasks that may not
 * run it may be here before the one that does. Returns with the lock.
 */
static int wait_turn(const struct entrypoint_task *task, int limit_ms) {
  long long end = child_clock_ms() + limit_ms;
  for (;;) {
    int fd = lock();
    if (fd < 0 || task->runs || there(VARIABLES_FILE) || there(VARIABLES_BEGUN) ||
        child_clock_ms() > end)
      return fd;
    close(fd);
    poll(NULL, 0, LOOK_MS);
  }
}

/* With the lock. */
static int ensure(const struct join_result *result, const struct entrypoint_task *task,
                  struct join_error *err) {
  if (there(VARIABLES_FILE))
    return 0;
  if (there(VARIABLES_BEGUN) || !task->runs)
    return fail(err, REMEDY_SKIP,
                "the image's entrypoint failed, or the task ended that was to run it");
  if (begin() < 0)
    return fail(err, NULL, "cannot write to %s: %s", VARIABLES_FOLDER, strerror(errno));
  return run_it(result, task, err) < 0 ? -1 : keep_changes(result, task->env, err);
}

int entrypoint_take(const struct join_result *result, const struct join_environment *env,
                    const struct entrypoint_task *task, struct join_error *err) {
  if (!variables_expected(result))
    return 0;
  int fd = wait_turn(task, limit_of(result));
  if (fd < 0)
    return fail(err, NULL, "cannot write to %s: %s", VARIABLES_FOLDER, strerror(errno));
  if (ensure(result, task, err) < 0) /* the lock goes with the process, which has then spoken */
    return -1;
  close(fd);
  return variables_take(result, env, err);
}
