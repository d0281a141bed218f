#include "command.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failure.h"

enum { PATH_SIZE = 4096, LINE_SIZE = 256 };

/* The path after "#!" of a script; false for what is no script. */
static bool read_interpreter(const char *path, char line[LINE_SIZE]) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return false;
  ssize_t n = read(fd, line, LINE_SIZE - 1);
  close(fd);
  if (n < 3 || line[0] != '#' || line[1] != '!')
    return false;
  line[n] = '\0';
  line[strcspn(line, "\n")] = '\0';
  size_t blanks = strspn(line + 2, " \t");
  memmove(line, line + 2 + blanks, strlen(line + 2 + blanks) + 1);
  line[strcspn(line, " \t\r")] = '\0';
  return line[0] == '/';
}

static bool is_executable(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static void say(const char *cause, const char *remedy) {
  failure_progress(cause);
  failure_progress(remedy);
}

/* True if it said something. */
static bool explain_path(const char *what, const char *path) {
  char interpreter[LINE_SIZE];
  char text[PATH_SIZE];
  if (access(path, F_OK) != 0) {
    snprintf(text, sizeof(text), "%s%s is not in the container", what, path);
    say(text, "  check the path, or mount the folder that holds it: --container-mounts");
  } else if (!is_executable(path)) {
    snprintf(text, sizeof(text), "%s%s in the container is not an executable file", what, path);
    say(text, "  make it executable, or start it by its interpreter");
  } else if (read_interpreter(path, interpreter) && access(interpreter, F_OK) != 0) {
    snprintf(text, sizeof(text), "%s%s begins with #!%s, which is not in the container", what, path,
             interpreter);
    say(text, "  use an interpreter that the image has, or an image with this one");
  } else {
    return false;
  }
  return true;
}

bool command_find(char *list, const char *name, char *path, size_t size) {
  char *rest = NULL;
  for (char *dir = strtok_r(list, ":", &rest); dir != NULL; dir = strtok_r(NULL, ":", &rest)) {
    int n = snprintf(path, size, "%s/%s", dir, name);
    if (n < (int)size && is_executable(path))
      return true;
  }
  return false;
}

static void explain_name(spank_t sp, const char *name) {
  char path[PATH_SIZE], full[PATH_SIZE], text[PATH_SIZE * 2];
  if (spank_getenv(sp, "PATH", path, sizeof(path)) != ESPANK_SUCCESS)
    return;
  snprintf(text, sizeof(text), "no command %s in the container; PATH is %s", name, path);
  if (!command_find(path, name, full, sizeof(full)))
    say(text, "  check its name, or give its path; some images lack common tools");
}

/* The command of the step, unless Slurm makes one up for each task. */
static const char *find_command(spank_t sp) {
  uint32_t step = 0;
  int argc = 0;
  char **argv = NULL;
  if (spank_get_item(sp, S_JOB_ARGV, &argc, &argv) != ESPANK_SUCCESS || argc < 1)
    return NULL;
  if (spank_get_item(sp, S_JOB_STEPID, &step) != ESPANK_SUCCESS)
    return NULL;
  /* --multi-prog: the second word is the text of a file */
  return argc > 1 && strchr(argv[1], '\n') != NULL ? NULL : argv[0];
}

void command_explain(spank_t sp, const char *const prologs[2]) {
  const char *command = find_command(sp);
  bool has_prolog = false;
  for (int i = 0; i < 2; i++) {
    if (prologs[i] == NULL)
      continue;
    has_prolog = true;
    if (explain_path("the task prolog ", prologs[i]))
      return;
  }
  if (command == NULL)
    return;
  if (strchr(command, '/') != NULL)
    explain_path("", command);
  else if (!has_prolog) /* a prolog may yet change PATH */
    explain_name(sp, command);
}
