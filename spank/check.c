#include "check.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* A part of an entry of --container-mounts; not ended by a NUL. */
struct part {
  const char *text;
  size_t len;
};

enum { NAME_LENGTH = 128 };

enum { MOUNT_PARTS = 4 }; /* SRC:DST:FLAGS, and one that is too many */

static bool part_is(struct part p, const char *word) {
  return p.len == strlen(word) && memcmp(p.text, word, p.len) == 0;
}

static bool begins_path(struct part p) {
  return p.len > 0 && (p.text[0] == '.' || p.text[0] == '/');
}

/* Takes what is before the next separator off the front of rest. */
static struct part next_part(struct part *rest, char separator) {
  const char *end = memchr(rest->text, separator, rest->len);
  struct part p = {rest->text, end == NULL ? rest->len : (size_t)(end - rest->text)};
  rest->text = end == NULL ? NULL : end + 1;
  rest->len = end == NULL ? 0 : rest->len - p.len - 1;
  return p;
}

static int cut(struct part entry, struct part parts[MOUNT_PARTS]) {
  int count = 0;
  while (entry.text != NULL && count < MOUNT_PARTS)
    parts[count++] = next_part(&entry, ':');
  return count;
}

/* The flags that launcher/inside/mountspec.go knows. */
static bool known_flag(struct part p) {
  static const char *const words[] = {
      "ro",       "rw",       "nosuid",     "nodev",      "noexec",   "bind",    "rbind",
      "private",  "slave",    "shared",     "unbindable", "rprivate", "rslave",  "rshared",
      "defaults", "suid",     "dev",        "exec",       "atime",    "noatime", "runbindable",
      "diratime", "relatime", "nodiratime", "strictatime"};
  for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
    if (part_is(p, words[i]))
      return true;
  return p.len >= 2 && memcmp(p.text, "x-", 2) == 0;
}

/* Of a tmpfs, what is no flag is an option of the file system. */
static bool check_flags(struct part flags, bool tmpfs, struct part entry, char *error) {
  while (flags.text != NULL) {
    struct part word = next_part(&flags, '+');
    if (word.len == 0)
      return wrong(error, "--container-mounts: \"%.*s\": the flags are empty", (int)entry.len,
                   entry.text);
    if (!tmpfs && !known_flag(word))
      return wrong(error, "--container-mounts: \"%.*s\": unknown flag \"%.*s\"", (int)entry.len,
                   entry.text, (int)word.len, word.text);
  }
  return true;
}

/* How far below its start a path ends; -1 if it leaves it on the way. */
static int depth(struct part path) {
  bool absolute = path.len > 0 && path.text[0] == '/';
  int n = 0;
  while (path.text != NULL) {
    struct part name = next_part(&path, '/');
    if (part_is(name, ".."))
      n--;
    else if (name.len > 0 && !part_is(name, "."))
      n++;
    if (n < 0 && !absolute)
      return -1;
    n = n < 0 ? 0 : n;
  }
  return n;
}

static bool check_target(struct part target, struct part entry, char *error) {
  const char *why = NULL;
  if (target.len == 0)
    why = "the target is empty";
  else if (!begins_path(target))
    why = "the target begins with /";
  else if (depth(target) < 0)
    why = "the target leaves the container";
  else if (depth(target) == 0)
    why = "the target is the container's root";
  return why == NULL ||
         wrong(error, "--container-mounts: \"%.*s\": %s", (int)entry.len, entry.text, why);
}

/* SRC, or SRC:FLAGS: what is no path there can only be flags. */
static bool check_short(const struct part *parts, int count, struct part entry, char *error) {
  if (count == 2 && !check_flags(parts[1], false, entry, error))
    return false;
  return parts[0].text[0] == '.' || check_target(parts[0], entry, error);
}

static bool check_mount(struct part entry, char *error) {
  struct part p[MOUNT_PARTS] = {{NULL, 0}};
  int count = cut(entry, p);
  bool tmpfs = part_is(p[0], "tmpfs"), umount = part_is(p[0], "umount"), verb = tmpfs || umount;
  int len = (int)entry.len;
  if (len == 0)
    return wrong(error, "--container-mounts: the entry is empty; write SRC:DST[:FLAGS][,...]");
  if (!verb && !begins_path(p[0]))
    return wrong(error,
                 "--container-mounts: \"%.*s\": the source begins with . or / (or is tmpfs or "
                 "umount)",
                 len, entry.text);
  if (count > 3 || (umount && count > 2))
    return wrong(error, "--container-mounts: \"%.*s\": too many colons; write SRC:DST[:FLAGS]", len,
                 entry.text);
  if (verb && p[1].len == 0)
    return wrong(error, "--container-mounts: \"%.*s\" needs a target: %s:/PATH", len, entry.text,
                 tmpfs ? "tmpfs" : "umount");
  if (!verb && (count == 1 || (count == 2 && p[1].len > 0 && !begins_path(p[1]))))
    return check_short(p, count, entry, error);
  return check_target(p[1], entry, error) && (count < 3 || check_flags(p[2], tmpfs, entry, error));
}

bool check_mounts(const char *value, char error[CHECK_ERROR_SIZE]) {
  struct part rest = {value, strlen(value)};
  if (has_control(value))
    return wrong(error, "--container-mounts: a path has a control character");
  while (rest.text != NULL)
    if (!check_mount(next_part(&rest, ','), error))
      return false;
  return true;
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

bool check_pin(const char *value, char error[CHECK_ERROR_SIZE]) {
  static const char *const words[] = {"yes", "no", "require"};
  for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
    if (strcmp(value, words[i]) == 0)
      return true;
  return wrong(error, "--container-pin is yes, no or require");
}

static bool check_kind(const char *kind, size_t len, char *error) {
  static const char *const kinds[] = {"net", "ipc", "uts"};
  for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
    if (strlen(kinds[i]) == len && strncmp(kind, kinds[i], len) == 0)
      return true;
  if (len == 3 && strncmp(kind, "pid", len) == 0)
    return wrong(error, "--container-unshare=pid: a task of Slurm's can't be in a pid namespace of "
                        "its own; in the job, berth run --unshare pid can");
  return wrong(error, "--container-unshare: \"%.*s\" is none of net, ipc and uts", (int)len, kind);
}

bool check_unshare(const char *value, char error[CHECK_ERROR_SIZE]) {
  if (has_control(value))
    return wrong(error, "--container-unshare takes net, ipc and uts");
  for (;;) {
    size_t len = strcspn(value, ",");
    if (!check_kind(value, len, error))
      return false;
    if (value[len] == '\0')
      return true;
    value += len + 1;
  }
}

static bool is_mode(const char *mode) {
  static const char *const modes[] = {"auto", "create", "exec", "no_exec"};
  for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
    if (strcmp(mode, modes[i]) == 0)
      return true;
  return false;
}

/* As CheckName of package changes and ParseKept of package launcher. */
bool check_name(const char *value, char error[CHECK_ERROR_SIZE]) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  size_t len = strspn(value, letters);
  if (has_control(value))
    return wrong(error, "--container-name: the name has a control character");
  if (len == 0 || len > NAME_LENGTH || value[0] == '.' || value[0] == '-' ||
      (value[len] != '\0' && value[len] != ':'))
    return wrong(error,
                 "--container-name=%s: use letters, digits, and _ . - within the name, %d at most",
                 value, NAME_LENGTH);
  if (value[len] == ':' && !is_mode(value + len + 1))
    return wrong(error, "--container-name=%s: the mode is auto, create, exec or no_exec", value);
  return true;
}

static bool check_save_reference(const char *value, char *error) {
  const char *reference = value + strlen("docker://");
  size_t len = strlen(reference);
  if (len == 0 || has_space(value) || reference[0] == '/' || strchr("/:@#", reference[len - 1]))
    return wrong(error, "--container-save=%s: write docker://[REGISTRY/]NAME[:TAG]", value);
  if (strstr(reference, "@sha256:") != NULL)
    return wrong(error,
                 "--container-save=%s: a digest is what a registry gives; write "
                 "docker://[REGISTRY/]NAME[:TAG]",
                 value);
  return true;
}

bool check_save_is_reference(const char *value) {
  return strncmp(value, "docker://", strlen("docker://")) == 0;
}

static bool names_folder(const char *value) {
  struct stat st;
  return ends_with(value, "/") || strcmp(value, ".") == 0 || strcmp(value, "..") == 0 ||
         ends_with(value, "/.") || ends_with(value, "/..") ||
         (value[0] == '/' && stat(value, &st) == 0 && S_ISDIR(st.st_mode));
}

bool check_save(const char *value, char error[CHECK_ERROR_SIZE]) {
  if (value[0] == '\0')
    return wrong(error, "--container-save: the path is empty");
  if (has_control(value))
    return wrong(error, "--container-save: the path has a control character");
  if (check_save_is_reference(value))
    return check_save_reference(value, error);
  if (names_layers(value) || strstr(value, "://") != NULL)
    return wrong(error, "--container-save=%s is neither a path nor docker://[REGISTRY/]NAME[:TAG]",
                 value);
  if (names_folder(value))
    return wrong(error, "--container-save=%s is a folder; name a file in it", value);
  return true;
}

/* The folder that path is in. */
static void folder_of(const char *path, char folder[PATH_MAX]) {
  const char *slash = strrchr(path, '/');
  int len = slash == NULL ? 0 : (int)(slash - path);
  if (slash == NULL)
    snprintf(folder, PATH_MAX, ".");
  else
    snprintf(folder, PATH_MAX, "%.*s", len == 0 ? 1 : len, path);
}

bool check_save_target(const char *path, char error[CHECK_ERROR_SIZE]) {
  char folder[PATH_MAX];
  struct stat st;
  if (check_save_is_reference(path))
    return true;
  if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
    return wrong(error, "--container-save=%s is %s; name a file", path,
                 S_ISDIR(st.st_mode) ? "a folder" : "no regular file");
  folder_of(path, folder);
  if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0)
    return wrong(error, "--container-save=%s: no file can be made in %s on this node: %s", path,
                 folder, strerror(errno));
  return true;
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
