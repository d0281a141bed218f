package sandbox

import "golang.org/x/sys/unix"

// auditArch is this machine's architecture as seccomp filters see it.
const auditArch = unix.AUDIT_ARCH_AARCH64
