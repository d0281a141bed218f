/*
 * result: what the creator of a container, and its entrypoint, leave for tasks.
 * Both write it as the user. A task keeps what its user wants kept, and every
 * variable that it gets has a name.
 */
#include <sys/mman.h>

#include "fuzz.h"
#include "../../../../launcher/join/filter.c"
#include "../../../../launcher/join/join.c"
#include "../../../../launcher/join/variables.c"
#include "../../../../launcher/join/wire.c"

enum { VARIABLES = 4096 };

struct list {
  char *entries[VARIABLES];
  size_t count;
};

static char **find(struct list *l, const char *name) {
  size_t len = strlen(name);
  for (size_t i = 0; i < l->count; i++)
    if (strncmp(l->entries[i], name, len) == 0 && l->entries[i][len] == '=')
      return &l->entries[i];
  return NULL;
}

static bool list_has_name(void *context, const char *name) {
  return find(context, name) != NULL;
}

static void list_unset(void *context, const char *name) {
  struct list *l = context;
  char **entry = find(l, name);
  if (entry == NULL)
    return;
  free(*entry);
  memmove(entry, entry + 1, (size_t)(l->entries + --l->count - entry) * sizeof(*entry));
}

static int list_set(void *context, const char *name, const char *value) {
  struct list *l = context;
  MUST(name[0] != '\0' && strchr(name, '=') == NULL);
  list_unset(l, name);
  return l->count < VARIABLES && asprintf(&l->entries[l->count++], "%s=%s", name, value) >= 0 ? 0
                                                                                              : -1;
}

static const char *list_entry(void *context, size_t number) {
  struct list *l = context;
  return number < l->count ? l->entries[number] : NULL;
}

static void check_kept(struct list *l) {
  char **kept = find(l, "KEPT");
  MUST(kept != NULL && strcmp(*kept, "KEPT=host") == 0);
  for (size_t i = 0; i < l->count; i++)
    MUST(l->entries[i][0] != '=' && strchr(l->entries[i], '=') != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct join_result result;
  static struct list l;
  static const char *const keep[] = {"X,KEPT", ",,Y"};
  static int fd = -1;
  struct join_error err;
  if (fd < 0)
    fd = memfd_create("result", MFD_CLOEXEC);
  MUST(fd >= 0 && ftruncate(fd, (off_t)size) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
  if (join_read_result(fd, &result, &err) < 0) {
    MUST(err.text[0] != '\0');
    return 0;
  }
  MUST(result.cwd[0] == '/' && result.len == size);
  struct join_environment env = {&l, list_has_name, list_set, list_unset, list_entry, keep, 2};
  list_set(&l, "KEPT", "host");
  list_set(&l, "LANG", "C");
  list_set(&l, "PATH", "/bin");
  list_set(&l, "SLURM_PROCID", "1");
  if (join_set_environment(&result, &env, &err) == 0)
    MUST(find(&l, "LANG") == NULL || join_kept(&env, &result, "LANG") ||
         join_image_sets(&result, "LANG") || names(&result, "set", "LANG=*"));
  check_kept(&l);
  struct wire_reader r;
  struct wire_record rec;
  wire_read(&r, result.data, result.len);
  while (wire_next(&r, &rec))
    if (take(&rec, &result, &env) < 0)
      break;
  check_kept(&l);
  while (l.count > 0)
    free(l.entries[--l.count]);
  return 0;
}
