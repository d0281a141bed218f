// Package credentials finds a user's logins to registries, where docker,
// podman, Enroot and CI systems leave them, and stores those of `berth login`.
//
//	secret.go     passwords and tokens that never print themselves
//	login.go      a login, and how one is meant to leave a process
//	target.go     what a login is wanted for, and which keys of a file mean it
//	keychain.go   the order in which sources are asked
//	authfile.go   auth.json of podman and config.json of docker
//	netrc.go      Enroot's .credentials
//	variables.go  what CI systems put into the environment
//	helper.go     docker-credential-* programs
//	sitefile.go   a file with the site's own login
//	vault.go      where `berth login` and `berth logout` write
//
// # The order
//
// The first source that has a login for the repository is taken:
//
//  1. the variables BERTH_REGISTRY_AUTH and DOCKER_AUTH_CONFIG
//  2. $REGISTRY_AUTH_FILE; where it is set, 3 and 4 are left out
//  3. $XDG_RUNTIME_DIR/containers/auth.json
//  4. ${XDG_CONFIG_HOME:-~/.config}/containers/auth.json
//  5. ${DOCKER_CONFIG:-~/.docker}/config.json
//  6. ${ENROOT_CONFIG_PATH:-~/.config/enroot}/.credentials
//
// Within one file: the helper that credHelpers names for the host, then the
// entry whose key is the longest beginning of HOST/REPOSITORY, then credsStore.
// Where a reference names a user (USER@IMAGE), only logins of that name count.
//
// A source that can't be read, or whose text is broken, is passed over with a
// warning that names it. If no other source has a login, that is the error: it
// is then the likely reason.
//
// # Two ways to look
//
// When users run a command themselves, everything above counts. When a node
// looks on behalf of a job, as the user but before the user's session, there
// are no variables and no helper programs: a Keychain without Variables,
// Expand and Helpers reads files, and nothing else.
//
// The package reads no environment and knows no registry; it is told the
// former and asked about the latter. Nothing here logs a secret: what warnings
// and errors say is made of names, paths and positions, never of contents.
package credentials
