#include "wire.h"

#include <stdio.h>
#include <string.h>

static bool key_char(char c) {
  return (c >= 'a' && c <= 'z') || c == '_';
}

static bool valid_key(const char *key, size_t len) {
  if (len == 0)
    return false;
  for (size_t i = 0; i < len; i++)
    if (!key_char(key[i]))
      return false;
  return true;
}

void wire_start(struct wire_writer *w, char *buf, size_t cap) {
  w->buf = buf;
  w->cap = cap < WIRE_MAX ? cap : WIRE_MAX;
  w->len = 0;
  w->failed = false;
}

void wire_add(struct wire_writer *w, const char *key, const char *value) {
  size_t key_len = strlen(key);
  size_t value_len = strlen(value);
  if (w->failed || !valid_key(key, key_len) || value_len > WIRE_MAX ||
      key_len + value_len + 2 > w->cap - w->len) {
    w->failed = true;
    return;
  }
  char *p = w->buf + w->len;
  memcpy(p, key, key_len); /* NOLINT(bugprone-not-null-terminated-result): = follows */
  p[key_len] = '=';
  memcpy(p + key_len + 1, value, value_len + 1);
  w->len += key_len + value_len + 2;
}

void wire_add_number(struct wire_writer *w, const char *key, unsigned long long value) {
  char text[24];
  snprintf(text, sizeof(text), "%llu", value);
  wire_add(w, key, text);
}

static bool valid_record(const char *record, size_t len) {
  const char *equals = memchr(record, '=', len);
  return equals != NULL && valid_key(record, (size_t)(equals - record));
}

bool wire_valid(const char *data, size_t len) {
  return len <= WIRE_MAX && wire_well_formed(data, len);
}

bool wire_well_formed(const char *data, size_t len) {
  while (len > 0) {
    const char *nul = memchr(data, '\0', len);
    if (nul == NULL || !valid_record(data, (size_t)(nul - data)))
      return false;
    len -= (size_t)(nul - data) + 1;
    data = nul + 1;
  }
  return true;
}

void wire_read(struct wire_reader *r, const char *data, size_t len) {
  r->next = data;
  r->end = data + len;
}

bool wire_next(struct wire_reader *r, struct wire_record *rec) {
  if (r->next >= r->end)
    return false;
  const char *equals = strchr(r->next, '=');
  rec->key = r->next;
  rec->key_len = (size_t)(equals - r->next);
  rec->value = equals + 1;
  r->next = rec->value + strlen(rec->value) + 1;
  return true;
}

bool wire_key_is(const struct wire_record *rec, const char *key) {
  return strlen(key) == rec->key_len && memcmp(rec->key, key, rec->key_len) == 0;
}

const char *wire_get(const char *data, size_t len, const char *key) {
  struct wire_reader r;
  struct wire_record rec;
  const char *value = NULL;
  wire_read(&r, data, len);
  while (wire_next(&r, &rec))
    if (wire_key_is(&rec, key))
      value = rec.value;
  return value;
}
