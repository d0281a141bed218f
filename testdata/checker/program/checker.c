/*
 * Says what the plugin thinks of values: `checker mounts|name|image` reads values
 * that NULs end and prints a line for each, "ok" or what the user is told.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

int main(int argc, char **argv) {
  char *value = NULL, error[CHECK_ERROR_SIZE];
  size_t size = 0;
  const char *what = argc == 2 ? argv[1] : "";
  bool (*check)(const char *, char *) = strcmp(what, "mounts") == 0 ? check_mounts
                                        : strcmp(what, "name") == 0 ? check_name
                                                                    : check_image;
  while (getdelim(&value, &size, '\0', stdin) > 0) {
    puts(check(value, error) ? "ok" : error);
    fflush(stdout);
  }
  free(value);
  return 0;
}
