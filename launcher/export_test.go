package launcher

import "os"

// For the tests in package launcher_test, which import launcher/inside.
var (
	PrivateMounts           = privateMounts
	WaitLoops               = waitLoops
	CheckHostMountNamespace = checkHostMountNamespace
	CheckUserNamespaces     = checkUserNamespaces
	CheckOwn                = checkOwn
	StartJanitor            = (*Creation).startJanitor
)

// TakeFound is Found.take.
func TakeFound(f *Found, files []*os.File, u User) error {
	err := f.take(files, u)
	if err == nil {
		f.Container.Close()
		f.Users.Close()
	}
	return err
}
