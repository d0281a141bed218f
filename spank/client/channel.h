/*
 * channel: the socket between a command in the container and the helper
 * outside. Sequenced packets of the wire format; the first has descriptors
 * with it: standard input, output, error, and the call.
 *
 *   inside → outside   call=1 with 4 descriptors, then signal=N
 *   outside → inside   status=N, as wait(2) gives it
 */
#ifndef BERTH_CHANNEL_H
#define BERTH_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>

enum { CHANNEL_FDS = 4, CHANNEL_CALL = 3 };

/* channel_connect connects to the socket of this name and returns -1 if it is not this user's. */
int channel_connect(const char *name);

/* channel_from_self says whether the other end is a process of this user. */
bool channel_from_self(int socket);

/* channel_send_call returns false with errno set. */
bool channel_send_call(int socket, const int fds[CHANNEL_FDS]);

/* channel_receive_call returns false, with nothing left open, for anything but a call. */
bool channel_receive_call(int socket, int fds[CHANNEL_FDS]);

/* channel_send sends key=number; it never blocks. */
bool channel_send(int socket, const char *key, unsigned number);

/*
 * channel_receive waits for key=number and returns false at the end, or for
 * what makes no sense.
 */
bool channel_receive(int socket, const char *key, unsigned *number);

/* channel_listen makes a socket whose name nobody can guess, and writes the name. */
int channel_listen(char *name, size_t size);

#endif
