/*
 * packet: messages in wire.h's format that carry descriptors along, over
 * sequenced-packet sockets (unix(7)).
 */
#ifndef BERTH_PACKET_H
#define BERTH_PACKET_H

#include "wire.h"

/* The most descriptors in a message that is sent. */
enum { PACKET_FDS_MAX = 8 };

/* packet_send returns 0, or -1 with errno. It raises no signal whoever is gone. */
int packet_send(int socket, const struct wire_writer *w, const int *fds, int count);

#endif
