/*
 * Runs a target without libFuzzer: `target N FILE…` gives it each file, and then
 * N inputs that are made of the files, the same ones each time. Of an input
 * that breaks it the bytes are printed.
 */
#include <signal.h>
#include <unistd.h>

#include "fuzz.h"

enum { INPUT_MAX = 1 << 16, SEEDS_MAX = 4096, CHANGES = 6 };

struct input {
  uint8_t *data;
  size_t len;
};

static struct input seeds[SEEDS_MAX];
static int seed_count;
static struct input current;
static uint64_t state = 88172645463325252ULL;

static size_t below(size_t n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return n == 0 ? 0 : (size_t)(state % n);
}

static void show(int signal) {
  (void)signal;
  dprintf(STDERR_FILENO, "the input, as printf(1) writes it: ");
  for (size_t i = 0; i < current.len; i++)
    dprintf(STDERR_FILENO, "\\x%02x", current.data[i]);
  dprintf(STDERR_FILENO, "\n");
}

static void run(const uint8_t *data, size_t len) {
  current.data = malloc(len > 0 ? len : 1); /* of this size, so that reading on is seen */
  MUST(current.data != NULL);
  if (len > 0)
    memcpy(current.data, data, len);
  current.len = len;
  MUST(LLVMFuzzerTestOneInput(current.data, len) == 0);
  free(current.data);
  current = (struct input){0};
}

static void load(const char *path) {
  static uint8_t buf[INPUT_MAX];
  FILE *f = fopen(path, "re");
  MUST(f != NULL && seed_count < SEEDS_MAX);
  size_t len = fread(buf, 1, sizeof(buf), f);
  fclose(f);
  run(buf, len);
  struct input *s = &seeds[seed_count++];
  *s = (struct input){malloc(len + 1), len};
  MUST(s->data != NULL);
  memcpy(s->data, buf, len);
}

/* Another byte, a cut, or a piece of another input. */
static size_t change(uint8_t *buf, size_t len) {
  static const char bytes[] = {0,   '/', ':',  ',', '=', '.',    '[',   ']',
                               '-', '+', '\n', '*', '9', '\x1b', '\xff'};
  const struct input *other = &seeds[below((size_t)seed_count)];
  size_t at = below(len + 1), from = below(other->len + 1);
  size_t n = below(other->len - from + 1);
  switch (below(4)) {
  case 0:
    if (at < len)
      buf[at] = (uint8_t)bytes[below(sizeof(bytes))];
    return len;
  case 1:
    if (at < len)
      buf[at] ^= (uint8_t)(1U << below(8));
    return len;
  case 2:
    return at;
  default:
    if (at + n > INPUT_MAX)
      return len;
    memcpy(buf + at, other->data + from, n);
    return at + n > len ? at + n : len;
  }
}

int main(int argc, char **argv) {
  static uint8_t buf[INPUT_MAX];
  signal(SIGABRT, show);
  for (int i = 2; i < argc; i++)
    load(argv[i]);
  MUST(seed_count > 0);
  for (long n = strtol(argv[1], NULL, 10); n > 0; n--) {
    const struct input *s = &seeds[below((size_t)seed_count)];
    size_t len = s->len;
    memcpy(buf, s->data, len);
    for (size_t i = 1 + below(CHANGES); i > 0; i--)
      len = change(buf, len);
    run(buf, len);
  }
  return 0;
}
