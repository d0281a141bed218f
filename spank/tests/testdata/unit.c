/*
 * Unit tests of the plugin's parts, each run in a process of its own by
 * unit_test.go: `unit list` prints their names, `unit NAME` runs one. Slurm's
 * functions are stand-ins. Arguments after the name are what an option test
 * pretends was typed.
 */
#include <errno.h>
#include <fcntl.h>
#include <slurm/spank.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "child.h"
#include "config.h"
#include "failure.h"
#include "join.h"
#include "login.h"
#include "options.h"
#include "pytorch.h"
#include "request.h"
#include "wire.h"

static int failures;

#define EXPECT(what)                                                                               \
  do {                                                                                             \
    if (!(what)) {                                                                                 \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                           \
      failures++;                                                                                  \
    }                                                                                              \
  } while (0)

static void expect_text(const char *got, const char *want, int line) {
  if ((got == NULL) != (want == NULL) || (got != NULL && strcmp(got, want) != 0)) {
    fprintf(stderr, "%s:%d: got \"%s\", want \"%s\"\n", __FILE__, line, got == NULL ? "NULL" : got,
            want == NULL ? "NULL" : want);
    failures++;
  }
}

#define EXPECT_TEXT(got, want) expect_text(got, want, __LINE__)

/* What Slurm would offer. */
static struct spank_option registered[32];
static int registered_count;
static char last_error[1024];

spank_err_t spank_option_register(spank_t sp, struct spank_option *o) {
  (void)sp;
  registered[registered_count++] = *o; /* Slurm copies it, too */
  return ESPANK_SUCCESS;
}

spank_err_t spank_option_getopt(spank_t sp, struct spank_option *o, char **value) {
  (void)sp;
  (void)o;
  (void)value;
  return ESPANK_ERROR;
}

void slurm_error(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(last_error, sizeof(last_error), format, args);
  va_end(args);
}

/* use calls the callback of an option as Slurm does. */
static int use(const char *name, const char *value, int remote) {
  for (int i = 0; i < registered_count; i++)
    if (strcmp(registered[i].name, name) == 0)
      return registered[i].cb(registered[i].val, value, remote);
  fprintf(stderr, "no option --%s\n", name);
  failures++;
  return -2;
}

static struct request merge(bool in_job) {
  struct request r;
  char error[512] = "";
  EXPECT(options_merge(in_job, &r, error));
  EXPECT_TEXT(error, "");
  return r;
}

static void expect_merge_error(const char *part) {
  struct request r;
  char error[512] = "";
  EXPECT(!options_merge(false, &r, error));
  if (strstr(error, part) == NULL)
    expect_text(error, part, __LINE__);
}

static void test_wire_round_trip(void) {
  char buf[256];
  struct wire_writer w;
  struct wire_reader r;
  struct wire_record rec;
  wire_start(&w, buf, sizeof(buf));
  wire_add(&w, "image", "alpine");
  wire_add(&w, "mounts", "/a:/b=c");
  wire_add(&w, "mounts", "");
  wire_add_number(&w, "job_id", 18446744073709551615ULL);
  EXPECT(!w.failed);
  EXPECT(wire_valid(buf, w.len));
  EXPECT(w.len == strlen("image=alpine") + strlen("mounts=/a:/b=c") + strlen("mounts=") +
                      strlen("job_id=18446744073709551615") + 4);
  wire_read(&r, buf, w.len);
  EXPECT(wire_next(&r, &rec) && wire_key_is(&rec, "image"));
  EXPECT(wire_next(&r, &rec) && wire_key_is(&rec, "mounts"));
  EXPECT_TEXT(rec.value, "/a:/b=c");
  EXPECT(!wire_key_is(&rec, "mount") && !wire_key_is(&rec, "mountss"));
  EXPECT(wire_next(&r, &rec) && wire_next(&r, &rec) && !wire_next(&r, &rec));
  EXPECT_TEXT(wire_get(buf, w.len, "mounts"), "");
  EXPECT_TEXT(wire_get(buf, w.len, "job_id"), "18446744073709551615");
  EXPECT_TEXT(wire_get(buf, w.len, "none"), NULL);
}

static void test_wire_limits(void) {
  static char buf[2 * WIRE_MAX], big[WIRE_MAX];
  struct wire_writer w;
  memset(big, 'x', sizeof(big) - 1);
  wire_start(&w, buf, sizeof(buf));
  wire_add(&w, "a", big); /* WIRE_MAX - 1 bytes, and 3 more */
  EXPECT(w.failed && w.len == 0);
  wire_start(&w, buf, sizeof(buf));
  big[WIRE_MAX - 3] = '\0';
  wire_add(&w, "a", big);
  EXPECT(!w.failed && w.len == WIRE_MAX && wire_valid(buf, w.len));
  wire_add(&w, "b", "");
  EXPECT(w.failed && w.len == WIRE_MAX);
  EXPECT(!wire_valid(buf, WIRE_MAX + 1));
  const char *bad_keys[] = {"", "A", "a b", "a=b", "a1", "a-b"};
  for (size_t i = 0; i < sizeof(bad_keys) / sizeof(*bad_keys); i++) {
    wire_start(&w, buf, sizeof(buf));
    wire_add(&w, bad_keys[i], "x");
    EXPECT(w.failed);
  }
}

static void test_wire_damaged(void) {
  static const struct {
    const char *data;
    size_t len;
    bool valid;
  } cases[] = {
      {"", 0, true},           {"a=", 3, true},   {"a=b\0c=d", 8, true}, {"a=b\0c=d", 7, false},
      {"a=b", 3, false},       {"ab", 3, false},  {"=b", 3, false},      {"a=b\0", 5, false},
      {"a=b\0\0\0", 6, false}, {"A=b", 4, false}, {"a\nb=c", 6, false},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
    if (wire_valid(cases[i].data, cases[i].len) != cases[i].valid) {
      fprintf(stderr, "message %zu: valid is not %d\n", i, cases[i].valid);
      failures++;
    }
}

static bool has(void *context, const char *name) {
  (void)context;
  return getenv(name) != NULL;
}

static int set(void *context, const char *name, const char *value) {
  (void)context;
  return setenv(name, value, 1);
}

static void unset(void *context, const char *name) {
  (void)context;
  unsetenv(name);
}

static const char *entry(void *context, size_t number) {
  (void)context;
  return environ[number];
}

static int write_result(const char *data, size_t len) {
  char path[] = "/tmp/berth-unit-XXXXXX";
  int fd = mkstemp(path);
  unlink(path);
  EXPECT(fd >= 0 && write(fd, data, len) == (ssize_t)len);
  return fd;
}

static void test_join_environment(void) {
  static struct join_result result;
  static const char data[] =
      "cwd=/w\0keep=PMI_*\0keep=SITE\0drop=BAD*\0drop=B\0env=A=image\0env=B=image\0env=C=image\0"
      "env=D=x=y\0env=LANG=im\0env=PMI_RANK=im\0env=PMI_NEW=im\0env=PMI=im\0env=SITE=im\0"
      "set=SET=site\0set=SITE=site\0set=B=site\0set=D=site";
  const char *keep[] = {"B,C", "LC_ALL"};
  struct join_error err;
  struct join_environment env = {
      .has = has, .set = set, .unset = unset, .entry = entry, .keep = keep, .keep_count = 2};
  const char *host[] = {"A", "BAD", "BAD_2", "BAD_LAST", "PMI_RANK", "PMI", "SET"};
  for (size_t i = 0; i < sizeof(host) / sizeof(*host); i++)
    setenv(host[i], "host", 1);
  setenv("B", "host", 1);
  unsetenv("C");
  setenv("LANG", "host", 1);
  setenv("LANGUAGE", "host", 1);
  setenv("LC_ALL", "host", 1);
  int fd = write_result(data, sizeof(data));
  EXPECT(join_read_result(fd, &result, &err) == 0);
  EXPECT_TEXT(result.cwd, "/w");
  EXPECT(join_set_environment(&result, &env, &err) == 0);
  EXPECT_TEXT(getenv("A"), "image");
  EXPECT_TEXT(getenv("B"), "host");
  EXPECT_TEXT(getenv("C"), "image"); /* kept, but the host has none */
  EXPECT_TEXT(getenv("D"), "site");
  EXPECT_TEXT(getenv("BAD"), NULL);
  EXPECT_TEXT(getenv("BAD_2"), NULL);
  EXPECT_TEXT(getenv("BAD_LAST"), NULL);
  EXPECT_TEXT(getenv("PMI_RANK"), "host");
  EXPECT_TEXT(getenv("PMI_NEW"), "im"); /* the host has none */
  EXPECT_TEXT(getenv("PMI"), "im");     /* not what PMI_* means */
  EXPECT_TEXT(getenv("SET"), "site");
  EXPECT_TEXT(getenv("SITE"), "site"); /* what the site sets is not the image's */
  EXPECT_TEXT(getenv("LANG"), "im");
  EXPECT_TEXT(getenv("LANGUAGE"), NULL);
  EXPECT_TEXT(getenv("LC_ALL"), "host");
}

static void test_join_bad_result(void) {
  static struct join_result result;
  static char big[WIRE_MAX + 1];
  struct join_error err;
  struct join_environment env = {.has = has, .set = set, .unset = unset, .entry = entry};
  EXPECT(join_read_result(write_result("", 0), &result, &err) < 0); /* no cwd */
  EXPECT(join_read_result(write_result("cwd=x", 6), &result, &err) < 0);
  EXPECT(join_read_result(write_result("cwd=/x", 6), &result, &err) < 0); /* cut off */
  memset(big, 'x', sizeof(big));
  EXPECT(join_read_result(write_result(big, sizeof(big)), &result, &err) < 0);
  EXPECT(join_read_result(-1, &result, &err) < 0);
  EXPECT(strstr(err.text, "Bad file descriptor") != NULL);
  EXPECT(join_read_result(write_result("cwd=/\0env=nameless", 19), &result, &err) == 0);
  EXPECT(join_set_environment(&result, &env, &err) < 0);
}

static void test_check_image(void) {
  static const struct {
    const char *value, *error;
  } cases[] = {
      {"alpine", NULL},
      {"docker://me@ghcr.io#a/b:1@sha256:00", NULL},
      {"./x.sqsh", NULL},
      {"/images/a b.sqsh", NULL},
      {"", "is empty"},
      {"al pine", "no spaces"},
      {"alpine\n", "control character"},
      {"x.sqsh", "did you mean ./x.sqsh"},
      {"images/x.sif", "did you mean ./images/x.sif"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    char error[CHECK_ERROR_SIZE] = "";
    EXPECT(check_image(cases[i].value, error) == (cases[i].error == NULL));
    if (cases[i].error != NULL && strstr(error, cases[i].error) == NULL)
      expect_text(error, cases[i].error, __LINE__);
  }
}

/* The classes of references.txt, which the tests of package imagecache read too. */
static void expect_class(const char *class, const char *value) {
  char error[CHECK_ERROR_SIZE] = "";
  bool good = check_image(value, error);
  bool path = strcmp(class, "path") == 0, registry = strcmp(class, "registry") == 0;
  bool wrong = strcmp(class, "wrong") == 0;
  if (check_image_is_path(value) != path || (!wrong && good != (path || registry)))
    expect_text(value, class, __LINE__);
  if (strcmp(class, "layers") == 0 && strstr(error, "has to be converted first") == NULL)
    expect_text(error, "has to be converted first", __LINE__);
  if (strcmp(class, "file") == 0 && strstr(error, "did you mean ./") == NULL)
    expect_text(error, "did you mean ./", __LINE__);
}

static void test_check_references(void) {
  char line[512];
  int classes = 0;
  FILE *f = fopen("testdata/references.txt", "re");
  EXPECT(f != NULL);
  while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
    char *value = strchr(line, ' ');
    line[strcspn(line, "\n")] = '\0';
    if (line[0] == '#' || value == NULL)
      continue;
    *value++ = '\0';
    expect_class(line, value);
    classes++;
  }
  EXPECT(classes > 30);
  if (f != NULL)
    fclose(f);
}

/* The table of mounts.txt, which the tests of launcher/inside read too. */
static void test_check_mounts(void) {
  char line[512], error[CHECK_ERROR_SIZE];
  int count = 0;
  FILE *f = fopen("testdata/mounts.txt", "re");
  EXPECT(f != NULL);
  while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
    char *value = strchr(line, '\t');
    if (value == NULL)
      continue;
    *value++ = '\0';
    value[strcspn(value, "\n")] = '\0';
    error[0] = '\0';
    bool good = check_mounts(value, error);
    if (good != (strcmp(line, "ok") == 0) || (!good && strstr(error, line) == NULL))
      expect_text(good ? value : error, line, __LINE__);
    count++;
  }
  EXPECT(count > 80);
  EXPECT(!check_mounts("/a\n:/b", error));
  if (f != NULL)
    fclose(f);
}

static void test_check_rest(void) {
  char error[CHECK_ERROR_SIZE];
  EXPECT(check_env("A", error) && check_env("A,B_1", error));
  EXPECT(!check_env("", error) && !check_env("A,,B", error) && !check_env("A,", error));
  EXPECT(!check_env("A=1", error));
  EXPECT(check_workdir("/w", error) && !check_workdir("", error) && !check_workdir("\t", error));
  EXPECT(check_name("a", error) && check_name("A_b.c-9:exec", error) && check_name("12.0", error));
  EXPECT(check_name("a:auto", error) && check_name("a:create", error) &&
         check_name("a:no_exec", error));
  EXPECT(!check_name("", error) && !check_name(".a", error) && !check_name("-a", error));
  EXPECT(!check_name("a/b", error) && !check_name("a b", error) && !check_name("../a", error));
  EXPECT(!check_name("a:", error) && !check_name("a:often", error) && !check_name(":exec", error));
  EXPECT(check_bool("1") == 1 && check_bool("Yes") == 1 && check_bool("true") == 1);
  EXPECT(check_bool("0") == 0 && check_bool("OFF") == 0 && check_bool("no") == 0);
  EXPECT(check_bool("") == -1 && check_bool("2") == -1 && check_bool("yess") == -1);
  const char *digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
  EXPECT(check_digest(digest) && !check_digest(digest + 1) && !check_digest(""));
  EXPECT(!check_digest("sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"));
}

static void test_check_save(void) {
  static const char *const good[] = {"a.sqsh", "./a", "/no/such/a.sqsh", "docker://a",
                                     "docker://h:5000/a/b:1"};
  static const char *const bad[] = {"",
                                    "a/",
                                    "/",
                                    "/tmp",
                                    ".",
                                    "..",
                                    "a/..",
                                    "a\n",
                                    "docker://",
                                    "docker://a:",
                                    "docker:///a",
                                    "docker://a b",
                                    "oci:x",
                                    "https://a/b",
                                    "docker-archive:x",
                                    "docker://a@sha256:0"};
  char error[CHECK_ERROR_SIZE], folder[] = "/tmp/save-XXXXXX", path[64];
  for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
    EXPECT(check_save(good[i], error));
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    EXPECT(!check_save(bad[i], error));
  EXPECT(mkdtemp(folder) != NULL);
  snprintf(path, sizeof(path), "%s/a", folder);
  EXPECT(check_save_target(path, error) && check_save_target("docker://a", error));
  EXPECT(!check_save_target(folder, error) && !check_save_target("/dev/null", error));
  EXPECT(!check_save_target("/no/such/a", error) && strstr(error, "/no/such on this node") != NULL);
  EXPECT(mkdir(path, 0700) == 0 && !check_save_target(path, error));
  EXPECT(rmdir(path) == 0 && rmdir(folder) == 0);
}

/* What the batch script's container is saved to is not asked for its steps. */
static void test_options_save(void) {
  struct request r;
  char error[512];
  EXPECT(use("container-image", "a", 0) == 0 && use("container-save", "x", 1) == 0);
  EXPECT(options_merge(false, &r, error));
  EXPECT_TEXT(r.save, "x");
  setenv("SLURM_BERTH_SAVE", "y", 1);
  EXPECT(options_merge(true, &r, error));
  EXPECT_TEXT(r.save, NULL);
  EXPECT(use("container-save", "z", 0) == 0 && options_merge(true, &r, error));
  EXPECT_TEXT(r.save, "z");
}

static void test_config(void) {
  struct config c;
  char error[256] = "";
  char *good[] = {"bindir=/o/bin", "libexec=/o/libexec", "prolog_wait=50"};
  char *bad[] = {"bindir=bin",     "libexec=", "prolog_wait=", "prolog_wait=x",
                 "prolog_wait=-1", "foo=1",    "bindir"};
  EXPECT(config_read(&c, 0, NULL, error));
  EXPECT(c.prolog_wait_ms == 2000);
  EXPECT_TEXT(c.berth, "/usr/bin/berth");
  EXPECT(config_read(&c, 3, good, error));
  EXPECT_TEXT(c.berth, "/o/bin/berth");
  EXPECT_TEXT(c.create, "/o/libexec/berth-create");
  EXPECT(c.prolog_wait_ms == 50);
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    error[0] = '\0';
    EXPECT(!config_read(&c, 1, &bad[i], error) && error[0] != '\0');
  }
}

#define DIGEST "sha256:00000000000000000000000000000000000000000000000000000000000000ab"

static char *from_environ(void *context, const char *name) {
  (void)context;
  return getenv(name) == NULL ? NULL : strdup(getenv(name));
}

static void to_environ(void *context, const char *name, const char *value) {
  (void)context;
  if (value == NULL)
    unsetenv(name);
  else
    setenv(name, value, 1);
}

static void test_request(void) {
  char buf[1024];
  struct wire_writer w;
  struct request back;
  struct request r = {
      .image = "a/b:1", .digest = DIGEST, .mounts = "/a,/b:/c", .home = "0", .env = "A,B"};
  setenv("SLURM_BERTH_WORKDIR", "of the job", 1);
  request_export(&r, "SLURM_BERTH_", to_environ, NULL);
  EXPECT_TEXT(getenv("SLURM_BERTH_WORKDIR"), NULL);
  request_import(&back, "SLURM_BERTH_", from_environ, NULL);
  EXPECT_TEXT(back.image, r.image);
  EXPECT_TEXT(back.digest, DIGEST);
  EXPECT_TEXT(back.mounts, r.mounts);
  EXPECT_TEXT(back.workdir, NULL);
  wire_start(&w, buf, sizeof(buf));
  request_encode(&back, &w);
  static const char want[] =
      "image=a/b:1\0digest=" DIGEST "\0mounts=/a,/b:/c\0home=0\0env=A\0env=B";
  EXPECT(w.len == sizeof(want) && memcmp(buf, want, sizeof(want)) == 0);
  setenv("SLURM_BERTH_IMAGE", "a/b:2", 1); /* a digest is good for its image only */
  request_import(&back, "SLURM_BERTH_", from_environ, NULL);
  EXPECT_TEXT(back.digest, NULL);
  EXPECT_TEXT(request_pinned("sha256:12=a", "a"), NULL);
  EXPECT_TEXT(request_pinned(DIGEST, "a"), NULL);
  EXPECT_TEXT(request_pinned(DIGEST "=a=b", "a=b"), DIGEST);
}

static void test_options_repeated(void) {
  EXPECT(use("container-image", "a", 0) == 0);
  EXPECT(use("container-image", "a", 0) == 0);
  EXPECT(use("container-image", "b", 0) < 0);
  EXPECT(strstr(last_error, "given twice") != NULL);
  EXPECT(use("container-mounts", "/a,/b:/c", 0) == 0);
  EXPECT(use("container-mounts", "/b:/c,/d", 0) == 0);
  EXPECT(use("container-mounts", "d", 0) < 0);
  EXPECT(use("container-env", "A", 0) == 0 && use("container-env", "B,A", 0) == 0);
  EXPECT(use("container-readonly", "", 0) == 0);
  EXPECT(use("container-writable", "", 0) < 0);
  EXPECT(strstr(last_error, "contradict") != NULL);
  EXPECT(use("no-container-mount-home", "", 0) == 0);
  EXPECT(use("container-mount-home", "", 0) < 0);
  struct request r = merge(false);
  EXPECT_TEXT(r.image, "a");
  EXPECT_TEXT(r.mounts, "/a,/b:/c,/d");
  EXPECT_TEXT(r.env, "A,B");
  EXPECT_TEXT(r.root, "readonly");
  EXPECT_TEXT(r.home, "0");
}

/* Run with --container-image=b: what came before was a #SBATCH line. */
static void test_options_script_line(void) {
  EXPECT(use("container-image", "a", 0) == 0);
  EXPECT(use("container-image", "b", 0) == 0);
  EXPECT_TEXT(merge(false).image, "b");
}

#define JOBS "SLURM_SPANK__SLURM_SPANK_OPTION_berth_container_"

static void test_options_job_overridden(void) {
  setenv(JOBS "image", "a", 1);
  setenv(JOBS "mounts", "/job", 1);
  setenv(JOBS "workdir", "/w", 1);
  setenv(JOBS "writable", "", 1);
  setenv("BERTH_CONTAINER_IMAGE", "c", 1);
  setenv("SLURM_BERTH_IMAGE", "d", 1);
  setenv("SLURM_BERTH_HOME", "1", 1);
  EXPECT_TEXT(merge(true).image, "c"); /* nothing from the job's options yet */
  EXPECT(use("container-image", getenv(JOBS "image"), 0) == 0);
  EXPECT(use("container-mounts", getenv(JOBS "mounts"), 0) == 0);
  EXPECT(use("container-workdir", getenv(JOBS "workdir"), 0) == 0);
  EXPECT(use("container-writable", getenv(JOBS "writable"), 0) == 0);
  EXPECT_TEXT(merge(true).image, "a");
  EXPECT(options_command_line()->image == NULL);
  EXPECT(use("container-image", "b", 0) == 0);
  EXPECT(use("container-mounts", "/step", 0) == 0);
  EXPECT(use("container-readonly", "", 0) == 0);
  struct request r = merge(true);
  EXPECT_TEXT(r.image, "b");
  EXPECT_TEXT(r.mounts, "/step");
  EXPECT_TEXT(r.workdir, "/w");
  EXPECT_TEXT(r.root, "readonly");
  EXPECT_TEXT(r.home, "1");
}

/* A job's name is for its image: a step with another one has no name, or its own. */
static void test_options_name(void) {
  setenv("SLURM_BERTH_IMAGE", "a:1", 1);
  setenv("SLURM_BERTH_NAME", "kept", 1);
  EXPECT_TEXT(merge(true).name, "kept");
  EXPECT(use("container-image", "a:1", 0) == 0);
  EXPECT_TEXT(merge(true).name, "kept");
  setenv("SLURM_BERTH_IMAGE", "b:1", 1);
  EXPECT_TEXT(merge(true).name, NULL);
  EXPECT(use("container-name", "own", 0) == 0);
  EXPECT_TEXT(merge(true).name, "own");
}

static void test_options_not_carried_out_of_job(void) {
  setenv("SLURM_BERTH_IMAGE", "d", 1);
  EXPECT_TEXT(merge(false).image, NULL);
  EXPECT_TEXT(merge(true).image, "d");
}

static void test_options_environment(void) {
  setenv("PYXIS_CONTAINER_IMAGE", "p", 1);
  EXPECT_TEXT(merge(false).image, "p");
  setenv("BERTH_CONTAINER_IMAGE", "b", 1);
  setenv("PYXIS_CONTAINER_MOUNTS", "/a,/b", 1);
  setenv("PYXIS_CONTAINER_MOUNT_HOME", "no", 1);
  setenv("PYXIS_CONTAINER_WRITABLE", "1", 1);
  setenv("PYXIS_CONTAINER_ENV", "A,B", 1);
  setenv("PYXIS_CONTAINER_WORKDIR", "", 1);
  struct request r = merge(false);
  EXPECT_TEXT(r.image, "b");
  EXPECT_TEXT(r.mounts, "/a,/b");
  EXPECT_TEXT(r.home, "0");
  EXPECT_TEXT(r.root, "writable");
  EXPECT_TEXT(r.env, "A,B");
  EXPECT_TEXT(r.workdir, NULL);
  EXPECT(use("container-mounts", "/c", 0) == 0); /* replaces, does not merge */
  EXPECT_TEXT(merge(false).mounts, "/c");
}

static void test_options_bad_environment(void) {
  setenv("PYXIS_CONTAINER_READONLY", "maybe", 1);
  expect_merge_error("PYXIS_CONTAINER_READONLY=maybe");
  setenv("PYXIS_CONTAINER_READONLY", "yes", 1);
  setenv("BERTH_CONTAINER_WRITABLE", "yes", 1);
  expect_merge_error("contradicts");
  unsetenv("BERTH_CONTAINER_WRITABLE");
  setenv("BERTH_CONTAINER_MOUNTS", "a:/b", 1);
  expect_merge_error("BERTH_CONTAINER_MOUNTS");
}

/* In slurmstepd the job's value comes first, then the step's. */
static void test_options_on_node(void) {
  EXPECT(use("container-image", "a", 1) == 0);
  EXPECT(use("container-image", "b", 1) == 0);
  EXPECT(use("container-writable", "", 1) == 0);
  EXPECT(use("container-readonly", "", 1) == 0);
  EXPECT_TEXT(options_transported()->image, "b");
  EXPECT_TEXT(options_transported()->root, "readonly");
}

static void test_child_cannot_start(void) {
  char *argv[] = {"none", NULL};
  struct child c = {
      .path = "/no/such/program", .argv = argv, .env = child_root_env, .fds = {-1, -1, -1, -1}};
  EXPECT(child_start(&c) == -1 && errno == ENOENT);
  c.orphan = true;
  EXPECT(child_start(&c) == -1 && errno == ENOENT);
  c.path = "/etc/passwd";
  EXPECT(child_start(&c) == -1 && errno == EACCES);
}

static void test_child_descriptors(void) {
  char text[256] = "";
  int out[2], status, secret = open("/dev/null", O_RDONLY);
  char *argv[] = {"sh", "-c", "echo $$ >/dev/null; cd /proc/self/fd; echo *; env; umask; pwd -P",
                  NULL};
  EXPECT(pipe(out) == 0 && secret >= 0);
  EXPECT(dup2(secret, 50) == 50);
  struct child c = {.path = "/bin/sh",
                    .argv = argv,
                    .env = child_root_env,
                    .fds = {-1, out[1], -1, out[1]},
                    .own_session = true};
  pid_t pid = child_start(&c);
  EXPECT(pid > 0 && child_wait(pid, 5000, &status) && status == 0);
  ssize_t n = read(out[0], text, sizeof(text) - 1);
  EXPECT(n > 0);
  EXPECT(strncmp(text, "0 1 2 3", 7) == 0);
  EXPECT(strstr(text, "50") == NULL);
  EXPECT(strstr(text, "LANG=C") != NULL && strstr(text, "HOME") == NULL);
  EXPECT(strstr(text, "0022") != NULL);
}

static void test_child_end(void) {
  char *argv[] = {"sh", "-c", "sleep 100 & sleep 100", NULL};
  int status, out[2];
  char c1;
  EXPECT(pipe(out) == 0);
  struct child c = {.path = "/bin/sh",
                    .argv = argv,
                    .env = child_root_env,
                    .fds = {-1, out[1], -1, -1},
                    .own_session = true};
  long long begin = child_clock_ms();
  pid_t pid = child_start(&c);
  close(out[1]);
  EXPECT(!child_end(pid, true, 100, &status));
  EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  EXPECT(read(out[0], &c1, 1) == 0); /* the whole group is gone */
  EXPECT(child_clock_ms() - begin >= 100 && child_clock_ms() - begin < 20000);
}

static void test_failure(void) {
  int status, pipes[2];
  char text[1024] = "";
  EXPECT(pipe(pipes) == 0);
  failure_share();
  EXPECT(!failure_kept());
  failure_keep("a remedy", "a cause with %s", "\033[31mcolour");
  failure_keep(NULL, "a later one");
  for (int i = 0; i < 2; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      dup2(pipes[1], STDERR_FILENO);
      failure_end();
    }
    EXPECT(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 1);
  }
  close(pipes[1]);
  ssize_t n = read(pipes[0], text, sizeof(text) - 1);
  EXPECT(n > 0);
  EXPECT_TEXT(text, "berth: error: a cause with  [31mcolour\nberth:   a remedy\n"); /* once */
}

static struct login a_login;

static bool look_for(const char *berth, const char *reference, int limit_ms) {
  static char *env[] = {"A_VARIABLE=s3cret", "PATH=/usr/bin:/bin", NULL};
  memset(&a_login, 0, sizeof(a_login));
  return login_find(berth, reference, env, limit_ms, &a_login);
}

static void test_login_found(void) {
  static const struct login empty;
  EXPECT(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
  EXPECT(look_for("testdata/berth", "secret", 10000));
  EXPECT_TEXT(a_login.answer, "{\"login\": \"s3cret 2\"}\n"); /* of two arguments: -- REFERENCE */
  EXPECT(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
  login_forget(&a_login);
  EXPECT(memcmp(a_login.answer, empty.answer, sizeof(empty.answer)) == 0);
}

static void test_login_none(void) {
  EXPECT(!look_for("/no/such/berth", "secret", 10000));
  EXPECT_TEXT(a_login.why, "cannot start /no/such/berth: No such file or directory");
  EXPECT(!look_for("testdata/berth", "silent", 10000));
  EXPECT_TEXT(a_login.why, "testdata/berth credential ended without an answer");
  EXPECT(!look_for("testdata/berth", "long", 10000));
  EXPECT_TEXT(a_login.why, "testdata/berth credential gave an answer that is too long");
}

/* Also one that does not heed SIGTERM. */
static void test_login_late(void) {
  const char *names[] = {"slow", "stubborn"};
  for (int i = 0; i < 2; i++) {
    long long begin = child_clock_ms();
    EXPECT(!look_for("testdata/berth", names[i], 1000));
    EXPECT_TEXT(a_login.why, "testdata/berth credential gave no answer within 1 s");
    EXPECT(child_clock_ms() - begin < 8000);
    EXPECT(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
  }
}

/* Whatever ends a task, its search for a login does not outlive it. */
static void test_login_ends_with_task(void) {
  int pipes[2];
  char c;
  EXPECT(pipe(pipes) == 0);
  pid_t task = fork();
  if (task == 0) {
    static char *argv[] = {"sleep", "60", NULL};
    struct child search = {.path = "/bin/sleep",
                           .argv = argv,
                           .env = child_root_env,
                           .fds = {-1, -1, -1, pipes[1]},
                           .ends_with_us = true};
    pid_t pid = child_start(&search);
    EXPECT(pid > 0 && write(pipes[1], &c, 1) == 1);
    for (;;)
      pause();
  }
  close(pipes[1]);
  EXPECT(read(pipes[0], &c, 1) == 1 && kill(task, SIGKILL) == 0);
  EXPECT(waitpid(task, NULL, 0) == task);
  EXPECT(read(pipes[0], &c, 1) == 0); /* nobody has the other end any more */
}

static void expect_first_host(const char *list, const char *want) {
  char host[8];
  bool found = pytorch_first_host(list, host, sizeof(host));
  EXPECT_TEXT(found ? host : NULL, want);
}

static void test_pytorch(void) {
  expect_first_host("n1", "n1");
  expect_first_host("n1,m2", "n1");
  expect_first_host("n[03-12,20],m", "n03");
  expect_first_host("n[7]", "n7");
  expect_first_host("r[1-2]c[4,5]x", "r1c4x");
  expect_first_host("n[1-2", NULL);
  expect_first_host("", NULL);
  expect_first_host("a-long-name", NULL);
  EXPECT(pytorch_port(1, 0) != pytorch_port(1, 1) && pytorch_port(1, 0) != pytorch_port(2, 0));
  EXPECT(pytorch_port(4294967295U, 4294967295U) >= 20000 && pytorch_port(9999, 0) < 30000);
}

static const struct {
  const char *name;
  void (*run)(void);
} tests[] = {
    {"wire-round-trip", test_wire_round_trip},
    {"wire-limits", test_wire_limits},
    {"wire-damaged", test_wire_damaged},
    {"join-environment", test_join_environment},
    {"join-bad-result", test_join_bad_result},
    {"check-image", test_check_image},
    {"check-references", test_check_references},
    {"check-mounts", test_check_mounts},
    {"check-rest", test_check_rest},
    {"check-save", test_check_save},
    {"options-save", test_options_save},
    {"config", test_config},
    {"request", test_request},
    {"options-repeated", test_options_repeated},
    {"options-script-line", test_options_script_line},
    {"options-job-overridden", test_options_job_overridden},
    {"options-name", test_options_name},
    {"options-not-carried-out-of-job", test_options_not_carried_out_of_job},
    {"options-environment", test_options_environment},
    {"options-bad-environment", test_options_bad_environment},
    {"options-on-node", test_options_on_node},
    {"pytorch", test_pytorch},
    {"child-cannot-start", test_child_cannot_start},
    {"child-descriptors", test_child_descriptors},
    {"child-end", test_child_end},
    {"failure", test_failure},
    {"login-found", test_login_found},
    {"login-none", test_login_none},
    {"login-late", test_login_late},
    {"login-ends-with-task", test_login_ends_with_task},
};

/*
 * `unit type ARG…` does with options what srun does, and prints what they ask
 * for, as `key=value` lines, or what is wrong with them.
 */
static int type(char **args) {
  struct request r;
  struct wire_writer w;
  static char buf[WIRE_MAX];
  char error[512] = "";
  for (; *args != NULL && strncmp(*args, "--", 2) == 0; args++) {
    char *value = strchr(*args, '=');
    if (value != NULL)
      *value = '\0';
    bool good = use(*args + 2, value == NULL ? "" : value + 1, 0) == 0;
    if (value != NULL)
      *value = '='; /* as /proc/self/cmdline has to show it */
    if (!good)
      return puts(last_error), 1;
  }
  if (!options_merge(false, &r, error))
    return puts(error), 1;
  if (!request_wants(&r) && options_given())
    puts("ignored");
  wire_start(&w, buf, sizeof(buf));
  request_encode(&r, &w);
  for (size_t i = 0; i < w.len; i += strlen(buf + i) + 1)
    puts(buf + i);
  return failures;
}

int main(int argc, char **argv) {
  size_t count = sizeof(tests) / sizeof(tests[0]);
  options_register(NULL);
  if (argc > 1 && strcmp(argv[1], "type") == 0)
    return type(argv + 2);
  for (size_t i = 0; i < count && argc > 1; i++) {
    if (strcmp(argv[1], "list") == 0)
      puts(tests[i].name);
    else if (strcmp(argv[1], tests[i].name) == 0)
      tests[i].run();
    else
      continue;
  }
  return failures == 0 ? 0 : 1;
}
