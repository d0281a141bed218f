package main

import (
	"context"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
)

// subIDs are the further ids of the user, for those who appear as root.
func (c *runCmd) subIDs(s *session) (launcher.SubIDs, error) {
	cfg, err := s.settings()
	if err != nil || !cfg.Container.SubIDs || !c.RemapRoot {
		return launcher.SubIDs{}, err
	}
	ids, err := launcher.FindSubIDs(s.user.name, s.user.uid, s.user.gid)
	return ids, fault.Wrap("find your further ids", "", fault.Site, "correct that file, or set container.sub_ids = false", err)
}

// takeBack makes what a container left in dir the user's own again, where
// further ids may have it. Whether the setting is still on does not matter.
func (s *session) takeBack(ctx context.Context, dir string) error {
	ids, err := launcher.FindSubIDs(s.user.name, s.user.uid, s.user.gid)
	if err != nil || ids.UIDs.Count == 0 {
		return nil // then no container had them
	}
	tools, err := s.findTools()
	if err != nil {
		return err
	}
	u := launcher.User{UID: s.user.uid, GID: s.user.gid, SubIDs: ids}
	users, err := launcher.NewUserNamespaces(ctx, tools.create, u)
	if err != nil {
		return nil // as no container could have been made with them
	}
	defer users.Close()
	return fault.Wrap("take files back from further ids", dir, fault.Site, "see whether /etc/subuid and /etc/subgid still have the ids that the files belong to",
		users.GiveBack(ctx, tools.create, u, dir))
}
