/*
 * Preloaded into a program of MPICH before 4.2: has UCX progress while PMI is
 * waited for, and nothing else.
 *
 * MPI_Finalize of such an MPICH over UCX waits in ucp_disconnect_nb for answers
 * of all peers, by UCX, and then for all peers, by reading from PMI_FD. Who
 * reads answers nobody; over TCP, the other end of a connection that was not
 * yet flushed waits for ever. MPICH 4.2 waits no more by PMI there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

static void *worker;
static unsigned (*progress)(void *);

int ucp_worker_create(void *context, const void *params, void **made) {
  int (*create)(void *, const void *, void **) =
      dlsym(RTLD_NEXT, "ucp_worker_create");
  int status = create(context, params, made);
  progress = dlsym(RTLD_DEFAULT, "ucp_worker_progress");
  if (status == 0 && worker == NULL)
    worker = *made;
  return status;
}

void ucp_worker_destroy(void *gone) {
  void (*destroy)(void *) = dlsym(RTLD_NEXT, "ucp_worker_destroy");
  if (gone == worker)
    worker = NULL;
  destroy(gone);
}

ssize_t read(int fd, void *into, size_t len) {
  static ssize_t (*plain)(int, void *, size_t);
  if (plain == NULL)
    plain = dlsym(RTLD_NEXT, "read");
  const char *pmi = getenv("PMI_FD");
  if (worker != NULL && pmi != NULL && atoi(pmi) == fd) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (worker != NULL && poll(&ready, 1, 0) == 0)
      progress(worker);
  }
  return plain(fd, into, len);
}
