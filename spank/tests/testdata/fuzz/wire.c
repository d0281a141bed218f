/* wire: a message is read as the records that it was written from, and nothing else is read. */
#include "fuzz.h"
#include "../../../../launcher/join/wire.c"

static void write_again(const char *data, size_t size) {
  static char again[WIRE_MAX], key[WIRE_MAX];
  struct wire_writer w;
  struct wire_reader r;
  struct wire_record rec;
  wire_start(&w, again, sizeof(again));
  wire_read(&r, data, size);
  while (wire_next(&r, &rec)) {
    MUST(rec.key_len > 0 && rec.key_len < sizeof(key));
    memcpy(key, rec.key, rec.key_len);
    key[rec.key_len] = '\0';
    MUST(wire_key_is(&rec, key) && wire_get(data, size, key) != NULL);
    wire_add(&w, key, rec.value);
  }
  MUST(!w.failed && w.len == size && memcmp(again, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *message = (const char *)data;
  if (wire_well_formed(message, size) && size <= WIRE_MAX)
    write_again(message, size);
  MUST(wire_valid(message, size) == (size <= WIRE_MAX && wire_well_formed(message, size)));
  return 0;
}
