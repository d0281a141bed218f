/*
 * check: every value of an option is right, or there is one line that says why
 * not. A list is right if each of its parts is. What the node says of the same
 * mounts and names is compared in launcher/inside and launcher.
 */
#include "fuzz.h"
#include "../../../check.c"

typedef bool check(const char *value, char error[CHECK_ERROR_SIZE]);

static bool verdict(check *f, const char *value) {
  char *error = malloc(CHECK_ERROR_SIZE);
  MUST(error != NULL);
  memset(error, 'x', CHECK_ERROR_SIZE);
  bool ok = f(value, error);
  if (!ok) {
    MUST(memchr(error, '\0', CHECK_ERROR_SIZE) != NULL && strncmp(error, "--container-", 12) == 0);
    MUST(!has_control(error));
  }
  free(error);
  return ok;
}

static void list(check *f, const char *value) {
  bool all = true;
  char *copy = fuzz_string((const uint8_t *)value, strlen(value));
  for (char *part = copy; part != NULL;) {
    char *end = strchr(part, ',');
    if (end != NULL)
      *end = '\0';
    all = verdict(f, part) && all;
    part = end == NULL ? NULL : end + 1;
  }
  free(copy);
  MUST(verdict(f, value) == all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *value = fuzz_string(data, size);
  list(check_mounts, value);
  list(check_env, value);
  list(check_device, value);
  list(check_unshare, value);
  if (verdict(check_image, value) && !check_image_is_path(value))
    MUST(!has_space(value) && value[0] != '/' && value[0] != '.');
  verdict(check_workdir, value);
  verdict(check_pin, value);
  if (verdict(check_name, value))
    MUST(strchr(value, '/') == NULL && value[0] != '.');
  int truth = check_bool(value);
  MUST(truth == 0 || truth == 1 || truth == -1);
  if (check_digest(value))
    MUST(strlen(value) == 71);
  free(value);
  return 0;
}
