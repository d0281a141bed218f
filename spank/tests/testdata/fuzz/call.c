/*
 * call: a command that somebody in a container wants to have run outside, from a
 * file that they wrote. Only Slurm's commands are run, and neither the loader's
 * variables nor the client's own folder come along.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

/* What a call allocates lives as long as its process; here, until the next input. */
enum { ALLOCATIONS = 64 };
static void *allocated[ALLOCATIONS];
static size_t allocations;

static void *remember(void *p) {
  MUST(allocations < ALLOCATIONS);
  return allocated[allocations++] = p;
}

static void forget(void *p) {
  for (size_t i = 0; i < allocations; i++)
    if (allocated[i] == p)
      allocated[i] = NULL;
  free(p);
}

#define malloc(size) remember((malloc)(size))
#define calloc(n, size) remember((calloc)(n, size))
#define free(p) forget(p)
#include "../../../client/call.c"
#include "../../../client/command.c"
#undef malloc
#undef calloc
#undef free

static size_t empty_folders(const char *path) {
  size_t n = *path == ':' || *path == '\0';
  for (; *path != '\0'; path++)
    n += *path == ':' && (path[1] == ':' || path[1] == '\0');
  return n;
}

static void check_path(const char *path) {
  for (size_t len; *path != '\0'; path += len + (path[len] == ':')) {
    len = strcspn(path, ":");
    MUST(len != strlen(CALL_FOLDER) || strncmp(path, CALL_FOLDER, len) != 0);
  }
}

static void check_environment(struct call *c) {
  size_t before = 0, after = 0;
  for (char **e = c->env; *e != NULL; e++)
    if (strncmp(*e, "PATH=", 5) == 0)
      before += empty_folders(*e + 5);
  for (char **e = environment(c); *e != NULL; e++) {
    MUST(!of_loader(*e) && strncmp(*e, CALL_SOCKET "=", strlen(CALL_SOCKET) + 1) != 0);
    if (strncmp(*e, "PATH=", 5) == 0) {
      check_path(*e + 5);
      after += empty_folders(*e + 5); /* an empty one is where the caller is */
    }
  }
  MUST(after <= before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int fd = -1;
  struct call c;
  environ = (char *[]){NULL};
  if (fd < 0)
    fd = memfd_create("call", MFD_CLOEXEC);
  MUST(fd >= 0 && ftruncate(fd, (off_t)size) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
  if (call_read(fd, &c)) {
    MUST(call_name(c.command) == c.command && strchr(c.command, '/') == NULL);
    MUST(c.argv[0] == c.command && (c.mask & ~0777U) == 0);
    size_t words = 0;
    while (c.argv[words] != NULL)
      words++;
    MUST(words <= size + 1);
    check_environment(&c);
  }
  while (allocations > 0)
    free(allocated[--allocations]);
  return 0;
}
