/*
 * settings: the plugin's arguments in plugstack.conf, and the words of a command
 * line, ended by NULs.
 */
#include "fuzz.h"
#include "../../../cmdline.c"
#include "../../../config.c"

enum { WORDS = 16 };

static void words(const char *data, size_t len) {
  static const char *const names[] = {"container-image", "c", ""};
  struct cmdline c = {.data = (char *)data, .len = (ssize_t)len};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
    const char *value = cmdline_value(&c, names[i]);
    if (value == NULL)
      continue;
    MUST(value >= data && value <= data + len && cmdline_count(&c, names[i]) > 0);
    MUST(value == data + len || cmdline_has(&c, value) || value[-1] == '=');
  }
}

static void arguments(char *data, size_t len) {
  static struct config c;
  char error[256] = "", *argv[WORDS];
  int argc = 0;
  for (char *p = data; p < data + len && argc < WORDS; p += strlen(p) + 1)
    argv[argc++] = p;
  if (config_read(&c, argc, argv, error)) {
    MUST(c.berth[0] == '/' && c.create[0] == '/' && c.commands[0] == '/');
    MUST(c.prolog_wait_ms >= 0 && c.prolog_wait_ms <= PROLOG_WAIT_MAX_MS);
  } else {
    MUST(strncmp(error, "plugstack.conf: ", 16) == 0 && memchr(error, '\0', sizeof(error)) != NULL);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *copy = fuzz_string(data, size);
  words(copy, size);
  arguments(copy, size);
  free(copy);
  return 0;
}
