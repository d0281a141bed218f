/*
 * hosts: the first name of a list of hosts is the one that Slurm takes from it.
 * link: -lslurm
 */
#include <slurm/slurm.h>

#include "fuzz.h"
#include "../../../pytorch.c"
#include "../../../../launcher/join/filter.c"
#include "../../../../launcher/join/join.c"
#include "../../../../launcher/join/wire.c"

enum { LIST_MAX = 300 };

/* Slurm's library leaks the names of ranges that it refuses. */
int __lsan_is_turned_off(void); /* NOLINT(bugprone-reserved-identifier): LeakSanitizer's */
int __lsan_is_turned_off(void) {
  return 1;
}

static void like_slurm(const char *text) {
  hostlist_t list = slurm_hostlist_create(text);
  if (list == NULL)
    return;
  char *ranged = slurm_hostlist_count(list) > 0 ? slurm_hostlist_ranged_string_malloc(list) : NULL;
  char *first = slurm_hostlist_shift(list);
  char host[HOST_SIZE];
  if (ranged != NULL && first != NULL && first[0] != '\0' && strlen(first) < sizeof(host) &&
      strpbrk(first, "[],") == NULL) {
    MUST(pytorch_first_host(ranged, host, sizeof(host)));
    if (strcmp(host, first) != 0) {
      fprintf(stderr, "of %s: %s, Slurm says %s\n", ranged, host, first);
      abort();
    }
  }
  free(ranged);
  free(first);
  slurm_hostlist_destroy(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *text = fuzz_string(data, size);
  for (size_t room = 1; room <= 16; room *= 4) {
    char *host = malloc(room);
    MUST(host != NULL);
    if (pytorch_first_host(text, host, room))
      MUST(host[0] != '\0' && strlen(host) < room);
    free(host);
  }
  if (size < LIST_MAX && strcspn(text, " \t\n") == strlen(text))
    like_slurm(text);
  free(text);
  return 0;
}
