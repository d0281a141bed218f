// Package faultfs is a file system for tests that loses power, fills up and
// breaks on demand, and knows at every instant what a disk would still hold.
//
// It is served by FUSE from memory, so that any process can use it: the test,
// and programs that the test starts and kills. Every operation that changes
// something, or makes it durable, gets a number, from 1 on. A Fault says what
// happens at one of them. Ops lists what happened, so that a test can say after
// which operation something went wrong, and check the order of syncs and names.
//
// Durability is the worst that POSIX allows:
//
//   - What was written to a file is on disk once the file was synced, not
//     before, and not because the file was closed or renamed. Its owner and
//     mode, too, and fdatasync does not cover these.
//   - A name (create, link, rename, unlink, mkdir, rmdir) is on disk once its
//     folder was synced. Syncing the file does not help, and of a rename
//     between two folders each keeps its own part.
//   - What was not synced may be on disk nevertheless: every change by itself,
//     in any order, writes also in part, or with their length but without their
//     bytes.
//   - A sync that fails loses what it should have written, and the next one
//     says nothing of it, but, as on Linux, to those who had the file open.
//
// Disk lays out one such state as a folder; a Survival picks it.
//
// What it does not know: times, extended attributes, mmap for writing (each
// change is a write; mmap for reading works), devices.
//
// The process that serves it must not wait for it outside of a system call that
// Go's scheduler knows of: it hangs when the garbage collector wants all threads
// to stop. So it may use files, but start programs neither from there nor with
// their folder there (exec.Cmd's Dir is changed to between fork and exec), and
// map files with MAP_POPULATE.
package faultfs
