#include "check.h"

#include <ctype.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

__attribute__((format(printf, 2, 3))) static bool wrong(char *error, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(error, CHECK_ERROR_SIZE, format, args);
  va_end(args);
  return false;
}

static bool has_control(const char *s) {
  for (; *s != '\0'; s++)
    if (iscntrl((unsigned char)*s))
      return true;
  return false;
}

static bool has_space(const char *s) {
  for (; *s != '\0'; s++)
    if (isspace((unsigned char)*s))
      return true;
  return false;
}

static bool ends_with(const char *s, const char *end) {
  size_t a = strlen(s), b = strlen(end);
  return a >= b && strcmp(s + a - b, end) == 0;
}

bool check_image_is_path(const char *value) {
  return value[0] == '.' || value[0] == '/';
}

/* Whether a reference names its registry, as imagecache/reference.go reads it. */
static bool names_registry(const char *value) {
  size_t first = strcspn(value, "/");
  if (strncmp(value, "docker://", strlen("docker://")) == 0 || strchr(value, '#') != NULL)
    return true;
  if (value[first] == '\0')
    return false;
  return strcspn(value, ".:") < first || strncmp(value, "localhost/", strlen("localhost/")) == 0;
}

/* Whether a reference ends like an image file: the commonest beginner's error. */
static bool looks_like_file(const char *value) {
  static const char *const ends[] = {".sqsh", ".sqfs", ".squashfs", ".sif", ".simg"};
  for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++)
    if (ends_with(value, ends[i]))
      return !names_registry(value);
  return false;
}

/* Whether a value names layers in a file or folder, which nodes do not convert. */
static bool names_layers(const char *value) {
  static const char *const starts[] = {"oci:", "oci-archive:", "docker-archive:", "dir:"};
  for (size_t i = 0; i < sizeof(starts) / sizeof(*starts); i++)
    if (strncmp(value, starts[i], strlen(starts[i])) == 0)
      return true;
  return false;
}

bool check_image(const char *value, char error[CHECK_ERROR_SIZE]) {
  if (value[0] == '\0')
    return wrong(error, "--container-image: the name of the image is empty");
  if (has_control(value))
    return wrong(error, "--container-image: the name of the image has a control character");
  if (check_image_is_path(value))
    return true;
  if (has_space(value))
    return wrong(error, "--container-image=%s: an image reference has no spaces", value);
  if (names_layers(value))
    return wrong(error,
                 "--container-image=%s has to be converted first: berth save %s x.sqsh, and then "
                 "--container-image=./x.sqsh",
                 value, value);
  if (looks_like_file(value))
    return wrong(error,
                 "--container-image=%s would be looked for in a registry; did you mean ./%s ?",
                 value, value);
  return true;
}

/* One entry of --container-mounts, cut at its colons. */
struct mount {
  char src[256], dst[256], rest[256];
  int parts;
};

static void cut(struct mount *m, const char *entry, size_t len) {
  char *into[] = {m->src, m->dst, m->rest};
  memset(m, 0, sizeof(*m));
  m->parts = 1;
  for (size_t i = 0, n = 0; i < len; i++) {
    if (entry[i] == ':') {
      m->parts++;
      n = 0;
    } else if (m->parts <= 3 && n < sizeof(m->src) - 1) {
      into[m->parts - 1][n++] = entry[i];
    }
  }
}

static bool check_mount(const struct mount *m, const char *entry, int len, char *error) {
  bool verb = strcmp(m->src, "tmpfs") == 0 || strcmp(m->src, "umount") == 0;
  if (len == 0)
    return wrong(error, "--container-mounts: an entry is empty; write SRC:DST[:FLAGS][,...]");
  if (!verb && m->src[0] != '.' && m->src[0] != '/')
    return wrong(error,
                 "--container-mounts: \"%.*s\": the source begins with . or / (or is tmpfs "
                 "or umount)",
                 len, entry);
  if (verb && m->parts < 2)
    return wrong(error, "--container-mounts: \"%.*s\" needs a target: %s:/PATH", len, entry,
                 m->src);
  if (m->parts > 1 && m->dst[0] != '.' && m->dst[0] != '/')
    return wrong(error, "--container-mounts: \"%.*s\": the target begins with /", len, entry);
  if (m->parts > 3 || (m->parts == 3 && m->rest[0] == '\0'))
    return wrong(error,
                 "--container-mounts: \"%.*s\" is not SRC:DST[:FLAGS], with FLAGS like ro+nosuid",
                 len, entry);
  return true;
}

bool check_mounts(const char *value, char error[CHECK_ERROR_SIZE]) {
  if (has_control(value))
    return wrong(error, "--container-mounts: a path has a control character");
  for (;;) {
    struct mount m;
    size_t len = strcspn(value, ",");
    cut(&m, value, len);
    if (!check_mount(&m, value, (int)len, error))
      return false;
    if (value[len] == '\0')
      return true;
    value += len + 1;
  }
}

bool check_workdir(const char *value, char error[CHECK_ERROR_SIZE]) {
  if (value[0] == '\0')
    return wrong(error, "--container-workdir: the path is empty");
  if (has_control(value))
    return wrong(error, "--container-workdir: the path has a control character");
  return true;
}

bool check_env(const char *value, char error[CHECK_ERROR_SIZE]) {
  if (has_control(value) || strchr(value, '=') != NULL)
    return wrong(error, "--container-env takes names of variables: NAME[,NAME]");
  for (;;) {
    size_t len = strcspn(value, ",");
    if (len == 0)
      return wrong(error, "--container-env: a name is empty; write NAME[,NAME]");
    if (value[len] == '\0')
      return true;
    value += len + 1;
  }
}

static bool is_device(const char *value, size_t len) {
  const char *slash = memchr(value, '/', len);
  const char *equals = memchr(value, '=', len);
  if (len > 5 && strncmp(value, "/dev/", 5) == 0)
    return true;
  return slash != NULL && slash > value && equals > slash + 1 && equals < value + len - 1;
}

bool check_device(const char *value, char error[CHECK_ERROR_SIZE]) {
  if (has_control(value))
    return wrong(error, "--container-device: a control character");
  for (;;) {
    size_t len = strcspn(value, ",");
    if (!is_device(value, len))
      return wrong(error, "--container-device takes devices as in nvidia.com/gpu=0, "
                          "nvidia.com/gpu=all or /dev/fuse; berth devices, on the node, lists "
                          "what there is");
    if (value[len] == '\0')
      return true;
    value += len + 1;
  }
}

int check_bool(const char *value) {
  static const char *const words[2][4] = {{"0", "false", "no", "off"}, {"1", "true", "yes", "on"}};
  for (int truth = 0; truth < 2; truth++)
    for (int i = 0; i < 4; i++)
      if (strcasecmp(value, words[truth][i]) == 0)
        return truth;
  return -1;
}

bool check_digest(const char *value) {
  static const char prefix[] = "sha256:";
  size_t start = sizeof(prefix) - 1;
  return strncmp(value, prefix, start) == 0 && strlen(value) == start + 64 &&
         strspn(value + start, "0123456789abcdef") == 64;
}
