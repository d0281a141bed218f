/*
 * berth-ready is what an image's entrypoint executes in place of a command
 * when it runs before a container's tasks (variables.h): it leaves the
 * environment that a command would have had. Called `drain`, it reads what
 * processes print that the entrypoint has left behind, until the last has
 * ended: they would else end when nobody reads it.
 *
 * It is static, because the image may have another C library or none, and
 * reaches its file by path: a descriptor would not get through an entrypoint
 * that starts its command by way of another program.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "variables.h"

static int drain(void) {
  char buf[4096];
  ssize_t n;
  do
    n = read(STDIN_FILENO, buf, sizeof(buf));
  while (n > 0 || (n < 0 && errno == EINTR));
  return 0;
}

/* Whoever runs it may not be who runs the tasks: that one needs to read the file. */
static int leave(void) {
  int fd = open(VARIABLES_ENVIRONMENT, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
  FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
  if (f == NULL)
    return -1;
  for (char **v = environ; *v != NULL; v++)
    fwrite(*v, strlen(*v) + 1, 1, f);
  int failed = ferror(f);
  return fclose(f) == 0 && !failed ? 0 : -1;
}

int main(int argc, char **argv) {
  if (argc > 0 && strcmp(argv[0], "drain") == 0)
    return drain();
  if (leave() == 0)
    return 0;
  fprintf(stderr, "berth: error: cannot write %s: %s\n", VARIABLES_ENVIRONMENT, strerror(errno));
  return 1;
}
