package inside

/*
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

// Copies of two fields of a user, which Go's os/user leaves out; to be freed.
static void account(unsigned uid, char **gecos, char **shell) {
	struct passwd *p = getpwuid(uid);
	*gecos = strdup(p == NULL ? "" : p->pw_gecos);
	*shell = strdup(p == NULL ? "" : p->pw_shell);
}
*/
import "C"

import (
	"strings"
	"unsafe"
)

// account asks the node's name service; both are "" for a user whom it does
// not know. It may be called by one goroutine at a time.
func account(uid int) (gecos, shell string) {
	var g, s *C.char
	C.account(C.uint(uid), &g, &s)
	defer C.free(unsafe.Pointer(g))
	defer C.free(unsafe.Pointer(s))
	return C.GoString(g), C.GoString(s)
}

func loginShell(uid int) string {
	_, shell := account(uid)
	return shell
}

// realName is the first part of the GECOS field: git signs commits with it.
func realName(uid int) string {
	gecos, _ := account(uid)
	name, _, _ := strings.Cut(gecos, ",")
	return name
}
