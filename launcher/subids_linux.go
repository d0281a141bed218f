package launcher

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An IDRange are ids of the node, Start and what follows, that a user may use
// beside their own; none with Count 0.
type IDRange struct {
	Start uint32 `json:"start"`
	Count uint32 `json:"count"`
}

func (r IDRange) String() string { return fmt.Sprintf("%d:%d", r.Start, r.Count) }

func (r IDRange) overlaps(o IDRange) bool {
	return uint64(r.Start) < uint64(o.Start)+uint64(o.Count) && uint64(o.Start) < uint64(r.Start)+uint64(r.Count)
}

// Limits of a file of ranges and of what may be in them: ids below are for
// accounts, and the last two mean nobody in some calls.
const (
	maxSubIDFile = 16 << 20
	firstSubID   = 1 << 16
	lastSubID    = 1<<32 - 3
)

// ReadSubIDs reads the largest range of a user, whom lines may name or number,
// from a file as /etc/subuid and /etc/subgid are (subuid(5)); none is no
// error. Root uses the answer as the user's right to become these ids, so the
// file must be root's alone to write, and what would let the user become an
// account, or another user's ids, is an error. own is the user's own id of the
// kind that the file has.
func ReadSubIDs(path, name string, uid, own int) (IDRange, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return IDRange{}, nil
	}
	if err != nil {
		return IDRange{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return IDRange{}, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 0 || st.Mode&0o022 != 0 {
		return IDRange{}, fmt.Errorf("%s: somebody else than root may write it", path)
	}
	r, err := chooseRange(f, name, uid, own)
	if err != nil {
		return IDRange{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func chooseRange(f io.Reader, name string, uid, own int) (IDRange, error) {
	var best IDRange
	var others []IDRange
	lines := bufio.NewScanner(io.LimitReader(f, maxSubIDFile))
	for lines.Scan() {
		owner, r, ok := parseRange(lines.Text())
		switch {
		case !ok:
		case owner != strconv.Itoa(uid) && (name == "" || owner != name):
			others = append(others, r)
		case r.Count > best.Count:
			best = r
		}
	}
	if err := lines.Err(); err != nil || best.Count == 0 {
		return IDRange{}, err
	}
	for _, o := range others {
		if best.overlaps(o) {
			return IDRange{}, fmt.Errorf("the range %v is in part another user's (%v)", best, o)
		}
	}
	if best.Start < firstSubID || uint64(best.Start)+uint64(best.Count)-1 > lastSubID {
		return IDRange{}, fmt.Errorf("the range %v has ids of accounts: it must begin at %d or later", best, firstSubID)
	}
	if best.overlaps(IDRange{uint32(own), 1}) {
		return IDRange{}, fmt.Errorf("the range %v has the user's own id", best)
	}
	return best, nil
}

// parseRange reads OWNER:START:COUNT; other lines are none.
func parseRange(line string) (owner string, r IDRange, ok bool) {
	f := strings.Split(strings.TrimSpace(line), ":")
	const fields = 3
	if len(f) != fields {
		return "", r, false
	}
	start, err1 := strconv.ParseUint(f[1], 10, 32)
	count, err2 := strconv.ParseUint(f[2], 10, 32)
	r = IDRange{uint32(start), uint32(count)}
	return f[0], r, err1 == nil && err2 == nil && count > 0
}

// SubIDs are the further ids of a user: none, or both kinds.
type SubIDs struct {
	UIDs IDRange `json:"uids"`
	GIDs IDRange `json:"gids"`
}

// FindSubIDs reads the node's files. Users that are in one of them only have none.
func FindSubIDs(name string, uid, gid int) (SubIDs, error) {
	uids, err1 := ReadSubIDs("/etc/subuid", name, uid, uid)
	gids, err2 := ReadSubIDs("/etc/subgid", name, uid, gid)
	if err := errors.Join(err1, err2); err != nil || uids.Count == 0 || gids.Count == 0 {
		return SubIDs{}, err
	}
	return SubIDs{uids, gids}, nil
}
