#include "variables.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool variables_expected(const struct join_result *result) {
  return wire_get(result->data, result->len, "entrypoint") != NULL;
}

static ssize_t read_all(int fd, char *buf) {
  size_t len = 0;
  ssize_t n;
  char more;
  while (len < JOIN_RESULT_MAX && (n = read(fd, buf + len, JOIN_RESULT_MAX - len)) != 0) {
    if (n > 0)
      len += (size_t)n;
    else if (errno != EINTR)
      return -1;
  }
  if (len < JOIN_RESULT_MAX || read(fd, &more, 1) == 0)
    return (ssize_t)len;
  errno = EFBIG;
  return -1;
}

ssize_t variables_read(const char *path, char *buf) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0)
    return -1;
  ssize_t len = -1;
  if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
    errno = EINVAL;
  else
    len = read_all(fd, buf);
  int why = errno;
  close(fd);
  errno = why;
  return len;
}

static int take(const struct wire_record *rec, const struct join_result *result,
                const struct join_environment *env) {
  char name[JOIN_NAME_MAX];
  if (wire_key_is(rec, "unset")) {
    if (!join_kept(env, result, rec->value))
      env->unset(env->context, rec->value);
    return 0;
  }
  if (!wire_key_is(rec, "env") || !join_name(rec->value, name))
    return 0;
  if (join_kept(env, result, name) && env->has(env->context, name))
    return 0;
  return env->set(env->context, name, rec->value + strlen(name) + 1);
}

int variables_take(const struct join_result *result, const struct join_environment *env,
                   struct join_error *err) {
  static char data[JOIN_RESULT_MAX];
  struct wire_reader r;
  struct wire_record rec;
  ssize_t len = variables_read(VARIABLES_FILE, data);
  if (len < 0 && errno == ENOENT)
    return 0;
  err->remedy = NULL;
  if (len < 0 || !wire_well_formed(data, (size_t)len)) {
    snprintf(err->text, sizeof(err->text),
             "cannot read the variables of the image's entrypoint: %s",
             len < 0 ? strerror(errno) : "they are damaged");
    return -1;
  }
  wire_read(&r, data, (size_t)len);
  while (wire_next(&r, &rec))
    if (take(&rec, result, env) < 0) {
      snprintf(err->text, sizeof(err->text), "cannot set the variables of the image's entrypoint");
      return -1;
    }
  return 0;
}
