package hooks

// For the tests in package hooks_test.
var (
	KeepEach        = keepEach
	KeepDescriptors = keepDescriptors
)
