// Package docs reads the code blocks of README.md and docs/*.md and runs their
// commands, so that what a document shows is what happens. docs/testing.md says
// how documents are written for it. Its tests run commands on a cluster;
// cmd/berth's check command lines and settings that are only shown.
package docs
