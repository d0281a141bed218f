#include "join.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "filter.h"

/* Variables of the host that would name locales the image does not have. */
static const char *const locale_names[] = {"LANG", "LANGUAGE", "LC_ALL"};

__attribute__((format(printf, 2, 3))) static int fail(struct join_error *err, const char *format,
                                                      ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(err->text, sizeof(err->text), format, args);
  va_end(args);
  err->remedy = NULL;
  return -1;
}

static ssize_t read_at(int fd, char *buf, size_t cap) {
  size_t len = 0;
  while (len < cap) {
    ssize_t n = pread(fd, buf + len, cap - len, (off_t)len);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -1;
    if (n == 0)
      break;
    len += (size_t)n;
  }
  return (ssize_t)len;
}

int join_read_result(int fd, struct join_result *result, struct join_error *err) {
  ssize_t len = read_at(fd, result->data, sizeof(result->data));
  if (len < 0)
    return fail(err, "cannot read the container's result: %s", strerror(errno));
  if (!wire_well_formed(result->data, (size_t)len))
    return fail(err, "the container's result is damaged");
  result->len = (size_t)len;
  result->cwd = wire_get(result->data, result->len, "cwd");
  if (result->cwd == NULL || result->cwd[0] != '/')
    return fail(err, "the container's result names no working directory");
  return 0;
}

/* Raw calls: the C library has no wrapper, and libcap is not needed for this. */
static int drop_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
    return -1;
  return (int)syscall(SYS_capset, &header, none);
}

static int enter(int fd, int type, const char *what, struct join_error *err) {
  if (setns(fd, type) == 0)
    return 0;
  return fail(err, "cannot enter the container's %s: %s", what, strerror(errno));
}

static int enter_folder(const char *path, struct join_error *err) {
  if (chdir(path) == 0)
    return 0;
  fail(err, "cannot enter the working directory %s in the container: %s", path, strerror(errno));
  err->remedy = "name a folder that the container has with --container-workdir";
  return -1;
}

/* N2 owns nothing: there the process is the user again, without capabilities. */
static int become_user(int user2, struct join_error *err) {
  if (enter(user2, CLONE_NEWUSER, "second user namespace", err) < 0)
    return -1;
  if (drop_capabilities() < 0)
    return fail(err, "cannot drop capabilities: %s", strerror(errno));
  return 0;
}

/* In N1 the process is root in appearance. */
static int appear_as_root(struct join_error *err) {
  if (!filter_wanted() || filter_install() == 0)
    return 0;
  return fail(err, "cannot install the filter for tasks that appear as root: %s", strerror(errno));
}

static const struct {
  const char *name, *what;
  int type;
} kinds[] = {
    {"ipc", "IPC namespace", CLONE_NEWIPC},
    {"uts", "UTS namespace", CLONE_NEWUTS},
    {"net", "network namespace", CLONE_NEWNET},
};

int join_type(const char *kind) {
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
    if (strcmp(kind, kinds[i].name) == 0)
      return kinds[i].type;
  return 0;
}

static int enter_own(const struct join_own *own, struct join_error *err) {
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
    if (own->type == kinds[i].type)
      return enter(own->fd, own->type, kinds[i].what, err);
  return fail(err, "the container has a namespace of an unknown kind");
}

int join_move(const struct join_namespaces *ns, struct join_error *err) {
  if (enter(ns->user, CLONE_NEWUSER, "user namespace", err) < 0)
    return -1;
  for (size_t i = 0; i < ns->own_count; i++)
    if (enter_own(&ns->own[i], err) < 0)
      return -1;
  return enter(ns->mnt, CLONE_NEWNS, "mount namespace", err);
}

int join_enter(const struct join_namespaces *ns, const char *cwd, struct join_error *err) {
  return join_move(ns, err) < 0 ? -1 : join_become(ns, cwd, err);
}

int join_become(const struct join_namespaces *ns, const char *cwd, struct join_error *err) {
  if (enter_folder(cwd, err) < 0)
    return -1;
  return ns->user2 < 0 ? appear_as_root(err) : become_user(ns->user2, err);
}

static bool list_has(const char *list, const char *name, size_t name_len) {
  while (*list != '\0') {
    size_t len = strcspn(list, ",");
    if (len == name_len && memcmp(list, name, len) == 0)
      return true;
    list += len;
    list += *list == ',';
  }
  return false;
}

bool join_keeps(const struct join_environment *env, const char *name) {
  size_t len = strlen(name);
  for (size_t i = 0; i < env->keep_count; i++)
    if (list_has(env->keep[i], name, len))
      return true;
  return false;
}

static bool matches(const char *pattern, const char *name) {
  size_t len = strlen(pattern);
  if (len > 0 && pattern[len - 1] == '*')
    return strncmp(pattern, name, len - 1) == 0;
  return strcmp(pattern, name) == 0;
}

/* Whether a record of the result with this key, keep or drop, is about name. */
static bool names(const struct join_result *result, const char *key, const char *name) {
  struct wire_reader r;
  struct wire_record rec;
  wire_read(&r, result->data, result->len);
  while (wire_next(&r, &rec))
    if (wire_key_is(&rec, key) && matches(rec.value, name))
      return true;
  return false;
}

bool join_kept(const struct join_environment *env, const struct join_result *result,
               const char *name) {
  return join_keeps(env, name) || names(result, "keep", name);
}

bool join_name(const char *entry, char name[JOIN_NAME_MAX]) {
  size_t len = strcspn(entry, "=");
  if (len == 0 || entry[len] == '\0' || len >= JOIN_NAME_MAX)
    return false;
  memcpy(name, entry, len);
  name[len] = '\0';
  return true;
}

bool join_image_sets(const struct join_result *result, const char *name) {
  struct wire_reader r;
  struct wire_record rec;
  size_t len = strlen(name);
  wire_read(&r, result->data, result->len);
  while (wire_next(&r, &rec))
    if (wire_key_is(&rec, "env") && strncmp(rec.value, name, len) == 0 && rec.value[len] == '=')
      return true;
  return false;
}

/* Takes away what the host has and the container is not to have. */
static void drop(const struct join_environment *env, const struct join_result *result) {
  char name[JOIN_NAME_MAX];
  const char *entry;
  for (size_t i = 0; i < sizeof(locale_names) / sizeof(locale_names[0]); i++)
    if (!join_kept(env, result, locale_names[i]))
      env->unset(env->context, locale_names[i]);
  for (size_t i = 0; (entry = env->entry(env->context, i)) != NULL;) {
    bool gone =
        join_name(entry, name) && names(result, "drop", name) && !join_kept(env, result, name);
    if (gone)
      env->unset(env->context, name); /* the others move up */
    i += !gone || env->has(env->context, name);
  }
}

static int set_one(const struct join_environment *env, const struct join_result *result,
                   const struct wire_record *rec, struct join_error *err) {
  char name[JOIN_NAME_MAX];
  bool image = wire_key_is(rec, "env");
  if (!image && !wire_key_is(rec, "set"))
    return 0;
  if (!join_name(rec->value, name))
    return fail(err, "the image sets a variable without a usable name");
  bool keep = image ? join_kept(env, result, name) : join_keeps(env, name);
  if (keep && env->has(env->context, name))
    return 0;
  if (env->set(env->context, name, rec->value + strlen(name) + 1) < 0)
    return fail(err, "cannot set %s as the image asks", name);
  return 0;
}

int join_set_environment(const struct join_result *result, const struct join_environment *env,
                         struct join_error *err) {
  struct wire_reader r;
  struct wire_record rec;
  drop(env, result);
  wire_read(&r, result->data, result->len);
  while (wire_next(&r, &rec))
    if (set_one(env, result, &rec, err) < 0)
      return -1;
  return 0;
}
