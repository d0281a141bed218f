/* The only program of an image that has nothing else. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int touch(const char *path) {
  FILE *f = fopen(path, "w");
  if (f == NULL) {
    printf("%s: %s\n", path, strerror(errno));
    return 1;
  }
  printf("wrote %s\n", path);
  return fclose(f);
}

/* time(2) as programs linked against a glibc before 2.14 call it. */
static int old_time(void) {
  long (*call)(long *) = (long (*)(long *))0xffffffffff600400;
  printf("%s\n", call(NULL) > 0 ? "vsyscall" : "none");
  return 0;
}

int main(int argc, char **argv) {
  char cwd[4096];
  setvbuf(stdout, NULL, _IONBF, 0);
  if (argc == 3 && strcmp(argv[1], "write") == 0)
    return touch(argv[2]);
  if (argc == 3 && strcmp(argv[1], "exists") == 0)
    return puts(access(argv[2], F_OK) == 0 ? "yes" : "no") < 0;
  if (argc == 3 && strcmp(argv[1], "env") == 0)
    return puts(getenv(argv[2]) == NULL ? "unset" : getenv(argv[2])) < 0;
  if (argc == 2 && strcmp(argv[1], "id") == 0)
    return printf("%d %s\n", (int)getuid(), getcwd(cwd, sizeof(cwd))) < 0;
  if (argc == 2 && strcmp(argv[1], "vsyscall") == 0)
    return old_time();
  for (int i = 1; i < argc; i++)
    printf("%s%s", i > 1 ? " " : "", argv[i]);
  return printf("\n") < 0;
}
