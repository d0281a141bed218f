package launcher

// For the tests in package launcher_test, which import launcher/inside.
var (
	PrivateMounts           = privateMounts
	WaitLoops               = waitLoops
	CheckHostMountNamespace = checkHostMountNamespace
	CheckUserNamespaces     = checkUserNamespaces
	CheckOwn                = checkOwn
	StartJanitor            = (*Creation).startJanitor
)
