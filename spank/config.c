#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef BERTH_BINDIR
#define BERTH_BINDIR "/usr/bin"
#endif
#ifndef BERTH_LIBEXEC
#define BERTH_LIBEXEC "/usr/libexec/berth"
#endif

#define COMMANDS "slurm/berth-slurm"

enum { ERROR_SIZE = 256, PROLOG_WAIT_MS = 2000, PROLOG_WAIT_MAX_MS = 60000 };

static const char *value_of(const char *arg, const char *key) {
  size_t len = strlen(key);
  return strncmp(arg, key, len) == 0 && arg[len] == '=' ? arg + len + 1 : NULL;
}

static bool take_folder(char path[PATH_MAX], const char *folder, const char *program, char *error) {
  int n = snprintf(path, PATH_MAX, "%s/%s", folder, program);
  if (folder[0] == '/' && n < PATH_MAX)
    return true;
  snprintf(error, ERROR_SIZE, "plugstack.conf: \"%s\" is not an absolute path", folder);
  return false;
}

static bool take_wait(int *ms, const char *text, char *error) {
  char *end;
  long n = strtol(text, &end, 10);
  if (*text != '\0' && *end == '\0' && n >= 0 && n <= PROLOG_WAIT_MAX_MS) {
    *ms = (int)n;
    return true;
  }
  snprintf(error, ERROR_SIZE, "plugstack.conf: prolog_wait=%s is not 0 to %d (milliseconds)", text,
           PROLOG_WAIT_MAX_MS);
  return false;
}

static bool take(struct config *c, const char *arg, char *error) {
  const char *value;
  if ((value = value_of(arg, "bindir")) != NULL)
    return take_folder(c->berth, value, "berth", error);
  if ((value = value_of(arg, "libexec")) != NULL)
    return take_folder(c->create, value, "berth-create", error) &&
           take_folder(c->commands, value, COMMANDS, error);
  if ((value = value_of(arg, "prolog_wait")) != NULL)
    return take_wait(&c->prolog_wait_ms, value, error);
  snprintf(error, ERROR_SIZE,
           "plugstack.conf: unknown argument \"%s\"; known are bindir= libexec= prolog_wait=", arg);
  return false;
}

bool config_read(struct config *c, int argc, char **argv, char error[256]) {
  snprintf(c->berth, sizeof(c->berth), "%s/berth", BERTH_BINDIR);
  snprintf(c->create, sizeof(c->create), "%s/berth-create", BERTH_LIBEXEC);
  snprintf(c->commands, sizeof(c->commands), "%s/" COMMANDS, BERTH_LIBEXEC);
  c->prolog_wait_ms = PROLOG_WAIT_MS;
  for (int i = 0; i < argc; i++)
    if (!take(c, argv[i], error))
      return false;
  return true;
}
