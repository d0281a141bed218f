/*
 * standby: the process that keeps a container ready (`berth-join --standby`). It is
 * outside of the container, holds the descriptors of its namespaces and gives
 * them to the processes of the same user that ask on its socket. It ends
 *
 *   - when nobody has asked for a while,
 *   - with the session in which it was started: a job step's, a terminal's,
 *   - when anything is mounted or unmounted in its mount namespace: a container
 *     made now might show other files,
 *   - when the image's server ends.
 *
 * Whoever has joined by then keeps the container.
 */
#ifndef BERTH_STANDBY_H
#define BERTH_STANDBY_H

/* What a holder is started with. */
enum {
  STANDBY_FOLDER = 3, /* the folder of sockets */
  STANDBY_SOCKET,     /* bound in it, not listening yet */
  STANDBY_USER,       /* N1 */
  STANDBY_MNT,
  STANDBY_USER2, /* N2 */
  STANDBY_RESULT,
  STANDBY_OFFER,   /* see ready.h */
  STANDBY_SESSION, /* a pidfd of the session's leader */
  STANDBY_MOUNTS,  /* mountinfo, opened before the container was made */
  STANDBY_SERVER,  /* the end of a pipe whose other end the image's server has; may be missing */
  STANDBY_END
};

/* What it gives away, in this order. */
enum { READY_USER, READY_MNT, READY_USER2, READY_RESULT, READY_OFFER, READY_FDS };

/*
 * standby_main listens under name in the folder and returns once a process of its
 * own does so: the exit status.
 */
int standby_main(const char *name, const char *seconds);

#endif
