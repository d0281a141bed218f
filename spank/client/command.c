#include "command.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "call.h"

enum { EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127 };

#define STANDARD_PATH "/usr/local/bin:/usr/bin:/bin"

static bool starts_with(const char *text, const char *prefix) {
  return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool of_loader(const char *variable) {
  return starts_with(variable, "LD_") || starts_with(variable, "GLIBC_TUNABLES=");
}

/*
 * Takes the client's folder out of a PATH, in place: outside there is no such. No
 * empty part is left for it, which would be the folder where the caller is.
 * Returns false when nothing else was there.
 */
static bool without_client(char *path) {
  char *to = path;
  bool any = false, more = true;
  for (char *from = path; more;) {
    size_t len = strcspn(from, ":");
    more = from[len] == ':';
    if (len != strlen(CALL_FOLDER) || strncmp(from, CALL_FOLDER, len) != 0) {
      if (any)
        *to++ = ':';
      memmove(to, from, len);
      to += len;
      any = true;
    }
    from += len + more;
  }
  *to = '\0';
  return any;
}

/* The caller's environment, with the loader's variables of ours. */
static char **environment(const struct call *c) {
  size_t n = 0, count = 0;
  while (c->env[n] != NULL)
    n++;
  for (size_t i = 0; environ[i] != NULL; i++)
    n++;
  char **env = calloc(n + 1, sizeof(char *));
  if (env == NULL)
    return NULL;
  for (size_t i = 0; c->env[i] != NULL; i++) {
    if (of_loader(c->env[i]) || starts_with(c->env[i], CALL_SOCKET "="))
      continue;
    if (starts_with(c->env[i], "PATH=") && !without_client(c->env[i] + strlen("PATH=")))
      continue;
    env[count++] = c->env[i];
  }
  for (size_t i = 0; environ[i] != NULL; i++)
    if (of_loader(environ[i]))
      env[count++] = environ[i];
  return env;
}

/* Hard limits can't be raised again, and some can't be set at all: that is no failure. */
static void set_limits(const struct call *c) {
  for (int i = 0; i < CALL_LIMITS; i++)
    if (c->limited[i] && setrlimit((__rlimit_resource_t)i, &c->limits[i]) < 0)
      continue;
}

static void fail(const char *command, const char *why) {
  fprintf(stderr, "berth: error: cannot run %s on the node: %s\n", command, why);
  _exit(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

/* Runs the first program of this name in our PATH. */
static void run(const struct call *c, char **env) {
  char path[4096];
  const char *folders = getenv("PATH");
  if (folders == NULL || folders[0] == '\0')
    folders = STANDARD_PATH;
  errno = ENOENT;
  while (*folders != '\0') {
    size_t len = strcspn(folders, ":");
    if (len > 0 && folders[0] == '/' && len + strlen(c->command) + 2 < sizeof(path)) {
      snprintf(path, sizeof(path), "%.*s/%s", (int)len, folders, c->command);
      execve(path, c->argv, env);
      if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
        break;
    }
    folders += len + (folders[len] == ':');
  }
  fail(c->command, strerror(errno));
}

/* A folder that only the container has leaves the command in the root folder. */
static void enter_folder(const struct call *c) {
  if (chdir(c->cwd) == 0)
    return;
  fprintf(stderr, "berth: %s starts in / because %s is not on the node\n", c->command, c->cwd);
  if (chdir("/") < 0)
    fail(c->command, strerror(errno));
}

__attribute__((noreturn)) static void become(const int fds[CHANNEL_FDS]) {
  struct call c;
  for (int i = 0; i < CHANNEL_CALL; i++)
    if (dup2(fds[i], i) < 0)
      _exit(EXIT_CANNOT_RUN);
  if (!call_read(fds[CHANNEL_CALL], &c))
    fail("the command", "the call makes no sense");
  char **env = environment(&c);
  if (env == NULL)
    fail(c.command, strerror(ENOMEM));
  enter_folder(&c);
  umask(c.mask);
  set_limits(&c);
  run(&c, env);
  _exit(EXIT_CANNOT_RUN);
}

/*
 * A session of its own: a terminal that comes with the call is then not the
 * controlling one, and srun --pty may set its modes although it is not in the
 * foreground there.
 */
pid_t command_start(const int fds[CHANNEL_FDS]) {
  pid_t pid = fork();
  if (pid != 0)
    return pid;
  setsid();
  for (int sig = 1; sig < NSIG; sig++)
    signal(sig, SIG_DFL);
  become(fds);
}
