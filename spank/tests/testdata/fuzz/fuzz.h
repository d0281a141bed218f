/*
 * fuzz: what the targets of this folder share. Each is one file that includes
 * the sources it is about, so that it reaches what is static there, and has
 * LLVMFuzzerTestOneInput. `make fuzz` builds it with libFuzzer, fuzz_test.go
 * with standalone.c. Options of the linker stand in a line "link: …".
 */
#ifndef BERTH_FUZZ_H
#define BERTH_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(what)                                                                                 \
  do {                                                                                             \
    if (!(what)) {                                                                                 \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                           \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

/* The input as a string in memory of its own, up to a NUL that it may have. */
static inline char *fuzz_string(const uint8_t *data, size_t size) {
  char *s = malloc(size + 1);
  MUST(s != NULL);
  if (size > 0)
    memcpy(s, data, size);
  s[size] = '\0';
  return s;
}

#endif
