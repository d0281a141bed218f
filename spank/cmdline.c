#include "cmdline.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CMDLINE_MAX = 1 << 20 };

void cmdline_read(struct cmdline *c) {
  c->data = NULL;
  c->len = 0;
  int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  char *data = fd < 0 ? NULL : malloc(CMDLINE_MAX);
  ssize_t n = 0;
  while (data != NULL && c->len < CMDLINE_MAX - 1 &&
         (n = read(fd, data + c->len, (size_t)(CMDLINE_MAX - 1 - c->len))) > 0)
    c->len += n;
  if (data != NULL)
    data[c->len] = '\0';
  c->data = data;
  if (fd >= 0)
    close(fd);
}

void cmdline_free(struct cmdline *c) {
  free(c->data);
}

static const char *after(const char *arg) {
  return arg + strlen(arg) + 1;
}

/* Returns what follows --NAME in arg ("" or "=VALUE"), or NULL. */
static const char *match(const char *arg, const char *name) {
  size_t len = strlen(name);
  if (strncmp(arg, "--", 2) != 0 || strncmp(arg + 2, name, len) != 0)
    return NULL;
  const char *rest = arg + 2 + len;
  return *rest == '\0' || *rest == '=' ? rest : NULL;
}

int cmdline_count(const struct cmdline *c, const char *name) {
  int count = 0;
  for (const char *arg = c->data; arg != NULL && arg < c->data + c->len; arg = after(arg))
    count += match(arg, name) != NULL;
  return count;
}

bool cmdline_has(const struct cmdline *c, const char *word) {
  for (const char *arg = c->data; arg != NULL && arg < c->data + c->len; arg = after(arg))
    if (strcmp(arg, word) == 0)
      return true;
  return false;
}

const char *cmdline_value(const struct cmdline *c, const char *name) {
  const char *value = NULL;
  for (const char *arg = c->data; arg != NULL && arg < c->data + c->len; arg = after(arg)) {
    const char *rest = match(arg, name);
    if (rest == NULL)
      continue;
    const char *next = after(arg);
    if (*rest == '=')
      value = rest + 1;
    else if (next < c->data + c->len)
      value = next;
  }
  return value;
}
