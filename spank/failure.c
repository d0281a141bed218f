#include "failure.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static char kept_cause[1024];
static char kept_remedy[1024];
static atomic_int *said; /* shared by the tasks of this node */

void failure_share(void) {
  void *page = mmap(NULL, sizeof(*said), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  said = page == MAP_FAILED ? NULL : page;
}

/* Text may come from a registry or an image: nothing in it may drive a terminal. */
static void make_printable(char *text) {
  for (; *text != '\0'; text++)
    if ((unsigned char)*text < ' ' || *text == 0x7f)
      *text = ' ';
}

void failure_keep(const char *remedy, const char *cause, ...) {
  if (failure_kept())
    return;
  va_list args;
  va_start(args, cause);
  vsnprintf(kept_cause, sizeof(kept_cause), cause, args);
  va_end(args);
  snprintf(kept_remedy, sizeof(kept_remedy), "%s", remedy == NULL ? "" : remedy);
  make_printable(kept_cause);
  make_printable(kept_remedy);
}

bool failure_kept(void) {
  return kept_cause[0] != '\0';
}

/* One write, so that lines of several tasks do not mix. */
static void print(const char *text, int len) {
  while (len > 0) {
    ssize_t n = write(STDERR_FILENO, text, (size_t)len);
    if (n <= 0)
      return;
    text += n;
    len -= (int)n;
  }
}

void failure_end(void) {
  char text[sizeof(kept_cause) + sizeof(kept_remedy) + 64];
  if (said == NULL || atomic_exchange(said, 1) == 0) {
    const char *lead = kept_remedy[0] == '\0' ? "" : "berth:   ";
    const char *end = kept_remedy[0] == '\0' ? "" : "\n";
    print(text, snprintf(text, sizeof(text), "berth: error: %s\n%s%s%s", kept_cause, lead,
                         kept_remedy, end));
  }
  _exit(1);
}

void failure_progress(const char *text) {
  char line[1024];
  int len = snprintf(line, sizeof(line) - 1, "berth: %s", text);
  if (len > (int)sizeof(line) - 2)
    len = (int)sizeof(line) - 2;
  make_printable(line);
  line[len++] = '\n';
  print(line, len);
}
