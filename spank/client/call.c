#include "call.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * No salloc and no scrontab: they run a shell or an editor where they are,
 * which would be outside.
 */
static const char *const commands[] = {"sacct",   "sattach",  "sbatch", "sbcast",
                                       "scancel", "scontrol", "sinfo",  "sprio",
                                       "squeue",  "srun",     "sshare", "sstat"};

const char *call_name(const char *path) {
  const char *slash = strrchr(path, '/');
  const char *base = slash == NULL ? path : slash + 1;
  for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
    if (strcmp(commands[i], base) == 0)
      return commands[i];
  return NULL;
}

static void put(FILE *f, const char *key, const char *value) {
  fprintf(f, "%s=%s", key, value);
  fputc('\0', f);
}

static void put_limits(FILE *f) {
  struct rlimit l;
  char text[96];
  for (int i = 0; i < RLIM_NLIMITS && i < CALL_LIMITS; i++) {
    if (getrlimit((__rlimit_resource_t)i, &l) < 0)
      continue;
    snprintf(text, sizeof(text), "%d %llu %llu", i, (unsigned long long)l.rlim_cur,
             (unsigned long long)l.rlim_max);
    put(f, "limit", text);
  }
}

static void put_place(FILE *f) {
  char text[16];
  char *cwd = getcwd(NULL, 0);
  mode_t mask = umask(0);
  umask(mask);
  snprintf(text, sizeof(text), "%o", (unsigned)mask);
  put(f, "umask", text);
  put(f, "cwd", cwd == NULL ? "/" : cwd);
  free(cwd);
}

static int write_all(int fd, const char *data, size_t len) {
  while (len > 0) {
    ssize_t n = write(fd, data, len);
    if (n < 0)
      return -1;
    data += n;
    len -= (size_t)n;
  }
  return 0;
}

static int seal(const char *data, size_t len) {
  int fd = memfd_create("berth-call", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0)
    return -1;
  if (write_all(fd, data, len) == 0 &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
    return fd;
  close(fd);
  return -1;
}

int call_seal(const char *command, char *const *args, char *const *env) {
  char *data = NULL;
  size_t len = 0;
  FILE *f = open_memstream(&data, &len);
  if (f == NULL)
    return -1;
  put(f, "command", command);
  for (; *args != NULL; args++)
    put(f, "arg", *args);
  for (; *env != NULL; env++)
    put(f, "env", *env);
  put_place(f);
  put_limits(f);
  int fd = fclose(f) == 0 ? seal(data, len) : -1;
  free(data);
  return fd;
}

/* Reads a whole regular file of a bearable size, NUL at its end. */
static char *read_file(int fd, size_t *len) {
  struct stat st;
  if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > CALL_MAX)
    return NULL;
  char *data = malloc((size_t)st.st_size);
  *len = (size_t)st.st_size;
  if (data != NULL && pread(fd, data, *len, 0) == (ssize_t)*len && data[*len - 1] == '\0')
    return data;
  free(data);
  return NULL;
}

static const char *value_of(const char *record, const char *key) {
  size_t n = strlen(key);
  return strncmp(record, key, n) == 0 && record[n] == '=' ? record + n + 1 : NULL;
}

static void take_limit(struct call *c, const char *text) {
  unsigned long long soft, hard;
  int i;
  if (sscanf(text, "%d %llu %llu", &i, &soft, &hard) != 3 || i < 0 || i >= CALL_LIMITS)
    return;
  c->limits[i] = (struct rlimit){.rlim_cur = soft, .rlim_max = hard};
  c->limited[i] = true;
}

static void take(struct call *c, char *record, char ***arg, char ***env) {
  const char *v;
  if ((v = value_of(record, "arg")) != NULL)
    *(*arg)++ = (char *)v;
  else if ((v = value_of(record, "env")) != NULL)
    *(*env)++ = (char *)v;
  else if ((v = value_of(record, "command")) != NULL)
    c->command = call_name(v);
  else if ((v = value_of(record, "cwd")) != NULL)
    c->cwd = v;
  else if ((v = value_of(record, "umask")) != NULL)
    c->mask = (mode_t)strtoul(v, NULL, 8) & 0777;
  else if ((v = value_of(record, "limit")) != NULL)
    take_limit(c, v);
}

bool call_read(int fd, struct call *c) {
  size_t len, records = 0;
  memset(c, 0, sizeof(*c));
  char *data = read_file(fd, &len);
  if (data == NULL)
    return false;
  for (size_t i = 0; i < len; i++)
    records += data[i] == '\0';
  char **arg = c->argv = calloc(records + 2, sizeof(char *));
  char **env = c->env = calloc(records + 1, sizeof(char *));
  if (arg == NULL || env == NULL)
    return false;
  arg++;
  for (char *p = data; p < data + len; p += strlen(p) + 1)
    take(c, p, &arg, &env);
  c->argv[0] = (char *)c->command;
  return c->command != NULL && c->cwd != NULL;
}
