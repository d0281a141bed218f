package inside

/*
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

struct account {
	char *name, *home, *gecos, *shell;
};

// Copies of a user's fields, to be freed; returns whether there is such a user.
static int account(unsigned uid, struct account *a) {
	struct passwd *p = getpwuid(uid);
	if (p == NULL)
		return 0;
	a->name = strdup(p->pw_name);
	a->home = strdup(p->pw_dir);
	a->gecos = strdup(p->pw_gecos);
	a->shell = strdup(p->pw_shell);
	return 1;
}
*/
import "C"

import (
	"strings"
	"unsafe"
)

// An account is a user as the node's name service knows them. Go's os/user
// leaves out two fields, and each question may cost a round trip.
type account struct {
	name, home, shell string
	realName          string // the first part of the GECOS field: git signs commits with it
}

// accountOf returns nil for a user whom the node does not know. It may be called
// by one goroutine at a time.
func accountOf(uid int) *account {
	var a C.struct_account
	if C.account(C.uint(uid), &a) == 0 {
		return nil
	}
	name, _, _ := strings.Cut(taken(a.gecos), ",")
	return &account{name: taken(a.name), home: taken(a.home), shell: taken(a.shell), realName: name}
}

// taken frees what it returns a copy of.
func taken(s *C.char) string {
	defer C.free(unsafe.Pointer(s))
	return C.GoString(s)
}
