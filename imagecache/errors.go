package imagecache

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// statusError is an answer of a registry other than the one hoped for.
type statusError struct {
	host      string
	via       string // the registry that redirected to host, if one did
	mirror    bool
	anonymous bool // nobody's login was there to be tried
	status    int
	detail    string        // the registry's own words, if any
	login     string        // which login it refused, in words; "" for none
	after     time.Duration // how long it wants to be left alone
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s answered %d %s", e.host, e.status, http.StatusText(e.status))
	if e.via != "" {
		text = fmt.Sprintf("%s, where %s keeps it, answered %d %s", e.host, e.via, e.status, http.StatusText(e.status))
	}
	if e.detail != "" {
		text += fmt.Sprintf(" (%s)", e.detail)
	}
	if e.login != "" {
		text += fmt.Sprintf(" to your login (%s)", e.login)
	}
	if e.after > 0 {
		text += fmt.Sprintf(" and wants to be left alone for %v", e.after.Round(time.Second))
	}
	return text
}

// wantsLogin reports whether a host may answer otherwise to somebody it knows.
// Where a registry redirects to, an address's signature decides.
func (e *statusError) wantsLogin() bool {
	return e.via == "" && (e.status == http.StatusUnauthorized || e.status == http.StatusForbidden)
}

// IsRefused reports whether a registry answered that it does not let the
// caller at an image, or knows of none, as some say of what is private: with a
// login, or another one, it may answer otherwise.
func IsRefused(err error) bool {
	var status *statusError
	if !errors.As(err, &status) || status.via != "" {
		return false
	}
	switch status.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone, http.StatusUnavailableForLegalReasons:
		return true
	case http.StatusBadRequest:
		return status.login != "" // token services say so of an expired token
	}
	return false
}

// errPlainHTTP stops a request that would have left this machine unencrypted.
var errPlainHTTP = errors.New("the registry wants plain HTTP")

// damaged says that an image breaks the rules of its format.
func damaged(format string, a ...any) error {
	return &fault.Error{
		Op: "read image", Blame: fault.User,
		Remedy: "build or push the image again", Err: fmt.Errorf("the image is damaged: "+format, a...),
	}
}

// mismatch says that bytes arrived other than those that were named, and from
// which hosts, if any.
func mismatch(what, want, got string, from ...string) error {
	who, sender := "the registry, a mirror or a proxy on the way alters or truncates data", ""
	if len(from) > 0 {
		sender = strings.Join(from, " and ")
		who = sender + " or a proxy on the way alters or truncates data"
		sender = ", from " + sender
	}
	return &fault.Error{
		Op: "verify", Arg: what, Blame: fault.Site, Cause: fault.Registry,
		Remedy: "try again; if it stays, " + who,
		Err:    fmt.Errorf("got %s, not %s as named%s", got, want, sender),
	}
}

// contradiction says that an image's parts, each of which arrived as it was
// named, do not fit together.
func contradiction(what, want, got string) error {
	return damaged("%s is %s where the config names %s", what, got, want)
}

// imageFault gives an error that has no cause and remedy yet both of them.
// op and ref say what was being done.
func imageFault(op string, ref Reference, err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return &fault.Error{Op: op, Arg: ref.String(), Blame: f.Blame, Remedy: fault.Remedy(err), Err: err}
	}
	blame, remedy := diagnose(ref, err)
	return &fault.Error{Op: op, Arg: ref.String(), Blame: blame, Remedy: remedy, Cause: causeOf(ref, err), Err: err}
}

// causeOf is the word by which err, which diagnose explains, is counted.
func causeOf(ref Reference, err error) string {
	var status *statusError
	switch {
	case errors.As(err, &status):
		return status.cause()
	case errors.Is(err, context.Canceled), errors.Is(err, unix.EFBIG):
		return ""
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), ref.kind == Registry && isPath(err):
		return fault.Disk
	case ref.kind == Registry:
		return fault.Registry
	}
	return ""
}

func (e *statusError) cause() string {
	switch {
	case e.via != "":
	case e.status == http.StatusNotFound:
		return fault.UnknownImage
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden, e.status == http.StatusBadRequest && e.login != "":
		return fault.LoginRefused
	}
	return fault.Registry
}

// isOurs reports whether err comes with a cause of its own, or from this
// machine or the network, so that the image is not to blame.
func isOurs(err error) bool {
	var f *fault.Error
	var transfer *transferError
	return errors.As(err, &f) || errors.As(err, &transfer) || isLocal(err) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// isLocal reports whether this machine's disk or limits are at fault.
func isLocal(err error) bool {
	return isErrno(err, unix.EFBIG, unix.ENOMEM, unix.EMFILE, unix.ENFILE) || IsDisk(err)
}

// IsDisk reports whether err comes from a file system: full, read-only, gone,
// or not the caller's to write.
func IsDisk(err error) bool {
	return isErrno(err, unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EACCES, unix.EPERM,
		unix.ESTALE, unix.ENOTCONN, unix.EREMOTEIO)
}

func isErrno(err error, any ...unix.Errno) bool {
	for _, errno := range any {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// diagnose says who can mend err and how.
func diagnose(ref Reference, err error) (fault.Blame, string) {
	var status *statusError
	switch {
	case errors.As(err, &status):
		return diagnoseStatus(ref, status)
	case errors.Is(err, context.Canceled):
		return fault.Site, "it was interrupted; start it again"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.Site, "make room on the disk that holds the store (berth gc, berth rm), or choose another folder for it"
	case errors.Is(err, unix.EFBIG):
		return fault.Site, "the image becomes larger than store.max_image in Berth's configuration, or a limit of this process (ulimit -f), allows; its admin can raise that"
	case ref.kind != Registry:
		return diagnoseFile(ref, err)
	case isPath(err):
		return fault.Site, "look at that file or folder: its owner, its rights, and the disk below it"
	}
	return diagnoseNetwork(ref, err)
}

func diagnoseStatus(ref Reference, e *statusError) (fault.Blame, string) {
	switch {
	case e.via != "":
		return fault.Site, fmt.Sprintf("%s leads to a place that does not serve it; try again, or ask the admin of %s", e.via, e.via)
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden,
		e.status == http.StatusBadRequest && e.login != "": // token services say so of an expired token
		return fault.User, loginRemedy(ref, e)
	case e.status == http.StatusNotFound:
		return fault.User, fmt.Sprintf("check the spelling of %s and its tag; %s has no such thing", ref.repository, ref.registry)
	case e.status == http.StatusProxyAuthRequired:
		return fault.Site, fmt.Sprintf("the proxy on the way to %s wants a login: http://USER:PASSWORD@HOST in network.proxy", ref.registry)
	case e.status == http.StatusTooManyRequests && ref.registry == dockerHub:
		return fault.Site, "Docker Hub limits how often an address may pull; try again later, log in with berth login docker.io, or have the admin set registry.\"docker.io\".mirrors"
	case e.status == http.StatusTooManyRequests:
		return fault.Site, ref.registry + " limits how often it may be asked; try again later, log in, or use a mirror"
	case e.status >= 500:
		return fault.Site, ref.registry + " has trouble of its own; try again later"
	default:
		return fault.Site, fmt.Sprintf("%s refuses in a way Berth does not know; ask its admin", ref.registry)
	}
}

// loginRemedy: registries say the same of what is private and of what does not
// exist.
func loginRemedy(ref Reference, e *statusError) string {
	check := "check the spelling of " + ref.repository
	if ref.registry == dockerHub {
		check += " (Docker Hub says the same of names that do not exist)"
	}
	if e.login != "" {
		return fmt.Sprintf("this login has expired, is wrong, or has no right to %s: berth login %s", ref.repository, ref.registry)
	}
	if e.anonymous {
		return check + "; if it is right, the image is private, and it was asked for without a login"
	}
	return fmt.Sprintf("%s; if it is right, the image is private: log in with berth login %s", check, ref.registry)
}

func diagnoseFile(ref Reference, err error) (fault.Blame, string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.User, "check the path; relative ones start at the current directory: " + ref.path
	case errors.Is(err, fs.ErrPermission):
		return fault.User, "you may not read " + ref.path
	default:
		return fault.User, "make the archive or folder again; it may be damaged"
	}
}

func diagnoseNetwork(ref Reference, err error) (fault.Blame, string) {
	var refused *proxyError
	switch {
	case errors.As(err, &refused), isProxyUnreachable(err):
		return fault.Site, fmt.Sprintf("look at the proxy for %s: network.proxy or registry.%q.proxy in Berth's configuration, or HTTPS_PROXY", ref.registry, ref.registry)
	case errors.Is(err, errPlainHTTP), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fault.Site, fmt.Sprintf("%s speaks plain HTTP; if that is meant, the admin sets registry.%q.insecure = true in Berth's configuration", ref.registry, ref.registry)
	case isCertificateError(err):
		return fault.Site, certificateRemedy(ref, err)
	case errors.Is(err, errRedirects), errors.Is(err, errInward):
		return fault.Site, fmt.Sprintf("ask the admin of %s where it keeps its layers", ref.registry)
	}
	return diagnoseConnection(ref, err)
}

// certificateRemedy tells apart what an admin does about a certificate.
func certificateRemedy(ref Reference, err error) string {
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate of %s is expired or not valid yet; its admin renews it, unless this machine's clock is wrong", ref.registry)
	case errors.As(err, &host):
		return fmt.Sprintf("the certificate is for another name than %s; use the name that it is for", ref.registry)
	}
	return fmt.Sprintf("the certificate of %s cannot be checked; the admin sets registry.%q.ca to its CA file in Berth's configuration", ref.registry, ref.registry)
}

func diagnoseConnection(ref Reference, err error) (fault.Blame, string) {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fault.Site, fmt.Sprintf("check the spelling of %s, and that this machine can look up names", dns.Name)
	case errors.Is(err, unix.ECONNREFUSED):
		return fault.Site, fmt.Sprintf("nothing listens at %s; check its name and port, or try again later", ref.registry)
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return fault.Site, fmt.Sprintf("this machine has no way to %s; the admin sets network.proxy or a mirror in Berth's configuration", ref.registry)
	case errors.Is(err, errStalled), errors.Is(err, errTooSlow):
		return fault.Site, fmt.Sprintf("try again; if %s is always this slow, use a mirror, or change network.stall_timeout and network.min_rate", ref.registry)
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return fault.Site, fmt.Sprintf("%s does not answer in time from this machine; is it behind a proxy or firewall?", ref.registry)
	case isBroken(err):
		return fault.Site, fmt.Sprintf("the connection to %s breaks off; try again; if it stays, a proxy or firewall on the way may cut it", ref.registry)
	default:
		return fault.Site, fmt.Sprintf("try again; if it stays, look at the connection to %s", ref.registry)
	}
}

func isPath(err error) bool {
	var path *fs.PathError
	var link *os.LinkError
	return errors.As(err, &path) || errors.As(err, &link)
}

func isCertificateError(err error) bool {
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid)
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
