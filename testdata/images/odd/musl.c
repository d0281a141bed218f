/* A dynamic program of another C library: who it is, by that library's own lookups. */
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

#ifdef __GLIBC__
#error this program is for musl
#endif

int main(void) {
  struct passwd *user = getpwuid(getuid());
  struct group *group = getgrgid(getgid());
  struct hostent *local = gethostbyname("localhost");
  printf("musl %s %s %s %s\n", user ? user->pw_name : "nobody known", group ? group->gr_name : "no group known",
         user ? user->pw_dir : "-", local ? "localhost" : "no hosts");
  return 0;
}
