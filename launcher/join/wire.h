/*
 * wire: the message format that the Slurm plugin, its helper and the tasks
 * speak. A message is a sequence of records `key=value`, each ended by a NUL
 * byte, at most WIRE_MAX bytes in all. Keys are [a-z_]+; a value may hold any
 * byte but NUL; keys may repeat and keep their order. The Go side is
 * launcher/wire.
 *
 * Nothing here allocates: the caller owns the buffers.
 */
#ifndef BERTH_WIRE_H
#define BERTH_WIRE_H

#include <stdbool.h>
#include <stddef.h>

/* The largest message, in bytes. */
#define WIRE_MAX (64UL * 1024)

/* A message that is being written into buf. */
struct wire_writer {
  char *buf;
  size_t cap;
  size_t len;
  bool failed; /* a record did not fit or was not allowed */
};

/* One record of a message that was read: all three point into the message. */
struct wire_record {
  const char *key; /* ends at '=', not at a NUL */
  size_t key_len;
  const char *value; /* ends at a NUL */
};

/* A position in a message that is being read. */
struct wire_reader {
  const char *next;
  const char *end;
};

void wire_start(struct wire_writer *w, char *buf, size_t cap);

/*
 * wire_add appends one record. A bad key or a message over its limit sets
 * failed, once and for all: callers check it when they are done.
 */
void wire_add(struct wire_writer *w, const char *key, const char *value);

/* wire_add_number is wire_add with a decimal number. */
void wire_add_number(struct wire_writer *w, const char *key, unsigned long long value);

/*
 * wire_valid says whether the len bytes at data are a whole message. An empty
 * message is valid. Only what it has approved may be read with wire_next.
 */
bool wire_valid(const char *data, size_t len);

/* wire_well_formed is wire_valid without a limit, for what is no message but a file. */
bool wire_well_formed(const char *data, size_t len);

void wire_read(struct wire_reader *r, const char *data, size_t len);

/* wire_next fills rec and returns true, or returns false at the end. */
bool wire_next(struct wire_reader *r, struct wire_record *rec);

bool wire_key_is(const struct wire_record *rec, const char *key);

/* wire_get returns the last value of key in a valid message, or NULL. */
const char *wire_get(const char *data, size_t len, const char *key);

#endif
